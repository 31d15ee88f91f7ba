"""Hash each file while it is downloaded, by reading it back from disk."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from prefetch.wanted import File

_BLOCK = 4 << 20
# Sync often: little is left to write at the end, provisioning never waits for gigabytes of dirty pages, and a
# power failure loses little.
_SYNC_EVERY = 64 << 20


class Hashing:
    """Hashes a growing file from disk, in its own thread.

    hashlib lets other threads run while it works, so several files take all cores.
    """

    def __init__(self, path: Path, file: File) -> None:
        self._path = path
        self._file = file
        self._written = 0
        self._given_up = False
        self._digest = ""
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"hash {file.path}", daemon=True)
        self._thread.start()

    def reached(self, written: int) -> None:
        """Report how many bytes of the file are written."""
        self._written = written

    def give_up(self) -> None:
        """End without a result."""
        self._given_up = True

    def result(self) -> str:
        """Wait until all is hashed and on disk; return the content's etag."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._digest

    def _run(self) -> None:
        try:
            self._digest = self._hash()
        except BaseException as error:
            self._error = error  # raised when the result is asked for

    def _hash(self) -> str:
        hasher = self._file.hasher()
        buffer = memoryview(bytearray(min(_BLOCK, self._file.bytes)))
        position = synced = 0
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            while position < self._file.bytes and not self._given_up:
                ready = min(self._written, self._file.bytes) - position
                # Avoid small steps, except for the last one.
                if ready < len(buffer) and self._written < self._file.bytes:
                    time.sleep(0.01)
                    continue
                count = os.preadv(descriptor, [buffer[: min(ready, len(buffer))]], position)
                if not count:
                    raise OSError(f"{self._path} became shorter while it was hashed")
                hasher.update(buffer[:count])
                position += count
                if position - synced >= _SYNC_EVERY:
                    os.fdatasync(descriptor)
                    synced = position
            if not self._given_up:
                os.fsync(descriptor)  # after a power failure a blob's name must not exist without its content
        finally:
            os.close(descriptor)
        return str(hasher.hexdigest())
