"""Who keeps a local cloud up: processes, or a person who asked for it."""

from __future__ import annotations

import logging
import os
import select
import threading

log = logging.getLogger(__name__)


class Owners:
    """Processes that want the cloud. When there were some and all are gone, nobody does."""

    def __init__(self, done: threading.Event) -> None:
        self._done = done
        self._lock = threading.Lock()
        self._pids: set[int] = set()
        self.kept = False

    def keep(self) -> bool:
        """The cloud was asked for by hand: it stays until it is taken down by hand. False as for `add`."""
        with self._lock:
            self.kept = not self._done.is_set()
            return self.kept

    def add(self, pid: int) -> bool:
        """False when the cloud is on its way down; ProcessLookupError if the process is gone already."""
        handle = os.pidfd_open(pid)
        with self._lock:
            if self._done.is_set():
                os.close(handle)
                return False
            self._pids.add(pid)
        threading.Thread(target=self._watch, args=(pid, handle), daemon=True).start()
        return True

    def release(self, pid: int) -> bool:
        """Forget an owner; True when the cloud goes down for it."""
        with self._lock:
            known = pid in self._pids
            self._pids.discard(pid)
            last = known and not self._pids and not self.kept
            if last:
                self._done.set()
        return last

    def living(self) -> list[int]:
        """The processes that use the cloud right now."""
        with self._lock:
            return sorted(self._pids)

    def _watch(self, pid: int, handle: int) -> None:
        select.select([handle], [], [])
        os.close(handle)
        if self.release(pid):
            log.info("the owner %d is gone", pid)
