"""Log JSON lines to stderr, with the current job's id and without secrets."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from .. import redaction

_job_id: ContextVar[str | None] = ContextVar("job_id", default=None)
# sd-daemon(3): what journald takes as a line's priority.
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


@contextlib.contextmanager
def job_context(job_id: str | None) -> Iterator[None]:
    """Add this job's id to every line logged inside."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


class JsonLines(logging.Formatter):
    """Formats a record as one line: time, level, logger, message, job, and `extra={"facts": {...}}`.

    With `priorities`, each line begins with journald's `<N>`, so that `journalctl -p warning` works.
    """

    def __init__(self, *, priorities: bool = False) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if job_id := _job_id.get():
            line["job"] = job_id
        line.update(getattr(record, "facts", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = redaction.redact(json.dumps(line, default=str))
        return f"<{_priority(record.levelno)}>{text}" if self._priorities else text


def _priority(level: int) -> int:
    return next((_PRIORITIES[known] for known in _PRIORITIES if level >= known), 7)


def to_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether stderr is the journal's socket itself: JOURNAL_STREAM holds its device and inode."""
    with contextlib.suppress(OSError, ValueError):
        stderr = os.fstat(sys.stderr.fileno())
        return environment.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"
    return False


def to_stderr() -> None:
    """Send all logs, Python's warnings and uncaught exceptions to stderr as JSON lines."""
    redaction.add_environment_secrets()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(priorities=to_journal()))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # At INFO botocore logs for every client where it found its credentials.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    # Python would print tracebacks as they are: over many lines, with secrets in them.
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash
    sys.unraisablehook = _log_unraisable


def report_fatal(message: str) -> None:
    """Report why the process ends: as plain text to a person, as a JSON line to the journal."""
    if to_journal():
        logging.getLogger("flux_worker").critical(message)
    else:
        print(redaction.redact(message), file=sys.stderr)


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("flux_worker").critical("the worker crashed: %r", error, exc_info=(kind, error, trace))


def _log_thread_crash(died: threading.ExceptHookArgs) -> None:
    if died.exc_value is None or died.exc_type is SystemExit:
        return
    name = died.thread.name if died.thread else "unknown"
    trace = (died.exc_type, died.exc_value, died.exc_traceback)
    logging.getLogger("flux_worker").critical("thread %s crashed: %r", name, died.exc_value, exc_info=trace)


def _log_unraisable(dropped: sys.UnraisableHookArgs) -> None:
    """Log an exception in a destructor, which Python drops. It may be Stopped, which is not an error."""
    error = dropped.exc_value
    trace = error if isinstance(error, Exception) else None
    logging.getLogger("flux_worker").warning("ignored exception in a destructor: %r", error, exc_info=trace)
