"""Delay a start after several that failed, longer each time.

systemd restarts a failed worker after RestartSec=, always the same few seconds; RestartSteps= is newer than
the systems that a worker runs on. So the worker counts failed starts in its state folder and waits itself.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ..backoff import Backoff

log = logging.getLogger(__name__)

_PAUSES = Backoff(10.0)
_FORGOTTEN_SECONDS = 4 * _PAUSES.longest  # older failures say nothing about today
_MOST = 1_000


class RestartCounter:
    """Counts the starts since a worker with this folder last finished a job or was asked to stop."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "starts-in-vain"
        self._before = self._read()

    def pause(self) -> float:
        """Seconds to wait before this start: 0 after a success or a first failure, since an interruption or
        the OOM killer may end any worker once.
        """
        if self._before < 2:
            return 0.0
        return _PAUSES.pause(self._before - 1)

    @property
    def failed_starts(self) -> int:
        """How many starts in a row failed."""
        return self._before

    def begin(self) -> None:
        """Count this start now, since a killed worker could not do so later."""
        self._write(min(self._before + 1, _MOST))

    def uncount(self) -> None:
        """Do not count this start: it failed because of settings or files, which somebody will fix."""
        self._write(self._before)

    def forget(self) -> None:
        """Reset the count."""
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
        except OSError as error:  # a full disk must not prevent the start
            log.warning("cannot write %s: %s", self._file, error)
