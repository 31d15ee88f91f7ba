"""Logs as JSON lines on stderr, each with the id of the job in hand."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_job_id: ContextVar[str | None] = ContextVar("job_id", default=None)


@contextlib.contextmanager
def about(job_id: str | None) -> Iterator[None]:
    """Every line logged inside carries this job's id."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


class JsonLines(logging.Formatter):
    """One record, one line: time, level, logger, message, job, and what `extra={"facts": {...}}` adds."""

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
        return json.dumps(line, default=str)


def to_stderr() -> None:
    """Send all logs, Python's warnings too, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # botocore tells at INFO where it found its credentials, at every client.
    logging.getLogger("botocore").setLevel(logging.WARNING)
