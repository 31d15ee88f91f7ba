"""Wait longer before each further start, where one after the other comes to nothing.

systemd starts a worker that failed after RestartSec=, always the same few seconds; its RestartSteps= is newer
than the systems that a worker runs on. So the worker counts in its state folder, and waits itself.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..backoff import Backoff

log = logging.getLogger(__name__)

_PAUSES = Backoff(10.0)
_FORGOTTEN_SECONDS = 4 * _PAUSES.longest  # what happened so long ago says nothing about today
_MOST = 1_000


class RestartCounter:
    """Counts the starts since a worker of this folder last drew a job, or was asked to end."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "starts-in-vain"
        self._before = self._read()

    def pause(self) -> float:
        """Seconds to wait before this start. None where the last one went well, or was the first to fail:
        a machine that is taken away, or the OOM killer, may end any worker once.
        """
        if self._before < 2:
            return 0.0
        return _PAUSES.pause(self._before - 1)

    @property
    def failed_starts(self) -> int:
        """How many starts in a row came to nothing."""
        return self._before

    def begin(self) -> None:
        """Count this start, now, since a worker that is killed could not do it afterwards."""
        self._write(min(self._before + 1, _MOST))

    def uncount(self) -> None:
        """It ended for its settings or its model's files, which somebody mends: that is no reason to wait."""
        self._write(self._before)

    def forget(self) -> None:
        """All is well."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove %s: %s", self._file, error)

    def _read(self) -> int:
        try:
            age = time.time() - self._file.stat().st_mtime
            return min(max(0, int(self._file.read_text())), _MOST) if age < _FORGOTTEN_SECONDS else 0
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("cannot read %s: %s", self._file, error)
            return 0

    def _write(self, count: int) -> None:
        try:
            self._file.write_text(f"{count}\n")
        except OSError as error:  # a disk that is full must not keep the worker from starting
            log.warning("cannot write %s: %s", self._file, error)
