"""The owners of a local cloud, who keep it up: processes, or a person."""

from __future__ import annotations

import logging
import os
import select
import threading

log = logging.getLogger(__name__)


class Owners:
    """The processes that use the cloud. Sets `done` when the last one has ended, unless the cloud is kept."""

    def __init__(self, done: threading.Event) -> None:
        self._done = done
        self._lock = threading.Lock()
        self._pids: set[int] = set()
        self.kept = False

    def keep(self) -> bool:
        """Keep the cloud up until `down`. False if it is already going down."""
        with self._lock:
            self.kept = not self._done.is_set()
            return self.kept

    def add(self, pid: int) -> bool:
        """Add a process. False if the cloud is going down; ProcessLookupError if the process has ended."""
        handle = os.pidfd_open(pid)
        with self._lock:
            if self._done.is_set():
                os.close(handle)
                return False
            self._pids.add(pid)
        threading.Thread(target=self._watch, args=(pid, handle), daemon=True).start()
        return True

    def release(self, pid: int) -> bool:
        """Remove an owner; True if it was the last, so that the cloud goes down."""
        with self._lock:
            known = pid in self._pids
            self._pids.discard(pid)
            last = known and not self._pids and not self.kept
            if last:
                self._done.set()
        return last

    def living(self) -> list[int]:
        """The processes that use the cloud now."""
        with self._lock:
            return sorted(self._pids)

    def _watch(self, pid: int, handle: int) -> None:
        select.select([handle], [], [])
        os.close(handle)
        if self.release(pid):
            log.info("the owner %d is gone", pid)
