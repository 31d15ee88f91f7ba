"""What the workers of one instance tell one another: which are ready, and which still serve.

Lifecycle hooks belong to the instance, and each GPU has a worker of its own. The workers share a folder
(systemd's RuntimeDirectory=, below /run) and hold flock(2) locks in it. The kernel drops the locks of a
process that ends, however it ends, so that nothing in the folder is ever out of date.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigurationError

log = logging.getLogger(__name__)

_SERVING = "serving"  # shared by all that serve
_READY = "ready-"  # and the device: held alone by the worker that is ready
_TRIES, _PAUSE_SECONDS = 40, 0.05  # for a lock that a sibling's look holds for a moment


class Siblings:
    """The workers of this instance, this one among them; alone without a folder. Thread-safe.

    Raises ConfigurationError if the folder cannot be used.
    """

    def __init__(self, folder: Path | None = None, workers: int = 1, device: str = "0") -> None:
        self._folder = folder if workers > 1 else None
        self._workers = workers
        self._device = device
        self._ready: int | None = None
        self._serving = self._join()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Siblings:
        """Read FLUX_WORKERS, FLUX_DEVICE and RUNTIME_DIRECTORY, which the units set."""
        given = environment.get("FLUX_WORKERS", "").strip() or "1"
        if not (given.isascii() and given.isdigit() and int(given)):
            raise ConfigurationError(f"FLUX_WORKERS={given}: must be the number of workers, 1 or more")
        folder = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]  # the first of several
        device = environment.get("FLUX_DEVICE", "").strip() or "0"
        return cls(Path(folder) if folder else None, int(given), device)

    def ready(self) -> None:
        """This worker is ready, until it leaves or its process ends."""
        if self._folder is None or self._ready is not None:
            return
        file = _open(self._folder / f"{_READY}{self._device.replace('/', '-')}")
        for _ in range(_TRIES):
            if _lock(file, fcntl.LOCK_EX):
                self._ready = file
                return
            time.sleep(_PAUSE_SECONDS)
        os.close(file)
        log.error(
            "two workers have FLUX_DEVICE=%s: launching lifecycle hooks are not completed", self._device
        )

    def all_ready(self) -> bool:
        """Whether all workers of the instance are ready at this moment."""
        if self._folder is None:
            return True
        return sum(_is_held(file) for file in self._folder.glob(f"{_READY}*")) >= self._workers

    def leave(self) -> None:
        """This worker serves no more: its jobs are delivered or returned."""
        for file in (self._ready, self._serving):
            if file is not None:
                os.close(file)  # which drops the lock
        self._ready = self._serving = None

    def all_left(self) -> bool:
        """Whether no worker of the instance serves any more; never while this one does."""
        if self._folder is None:
            return True
        return not _is_held(self._folder / _SERVING, fcntl.LOCK_EX)

    def _join(self) -> int | None:
        if self._folder is None:
            return None
        try:
            file = _open(self._folder / _SERVING)
        except OSError as error:
            raise ConfigurationError(
                f"RUNTIME_DIRECTORY={self._folder}: the workers of an instance share it, and it cannot be "
                f"used: {error.strerror}"
            ) from error
        fcntl.flock(file, fcntl.LOCK_SH)  # waits at most for a sibling's look
        return file


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(file: int, kind: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    return False


def _is_held(path: Path, kind: int = fcntl.LOCK_SH) -> bool:
    """Whether somebody holds a lock that excludes one of this kind, which is taken for a moment only."""
    file = _open(path)
    try:
        return not _lock(file, kind)
    finally:
        os.close(file)
