"""Hashing in the shadow of the download: each file is read back while it still grows."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from prefetch.wanted import File

_BLOCK = 4 << 20
# So the disk works from the first bytes on, little is left to write after the last one, what is installed
# beside the download never waits for gigabytes of it, and a power failure takes little.
_SYNC_EVERY = 64 << 20


class Hashing:
    """Hashes a file as it lies on the disk, up to where it was written, in a thread of its own.

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
        """Tell how many bytes of the file are there by now."""
        self._written = written

    def give_up(self) -> None:
        """End without a result."""
        self._given_up = True

    def result(self) -> str:
        """Wait until all is hashed and on the disk; returns the etag that this content has."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._digest

    def _run(self) -> None:
        try:
            self._digest = self._hash()
        except BaseException as error:
            self._error = error  # raised where the result is asked for

    def _hash(self) -> str:
        hasher = self._file.hasher()
        buffer = memoryview(bytearray(min(_BLOCK, self._file.bytes)))
        position = synced = 0
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            while position < self._file.bytes and not self._given_up:
                ready = min(self._written, self._file.bytes) - position
                # Small steps would cost more than they gain; the last one is as small as it is.
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
                os.fsync(descriptor)  # a blob's name must not outlive its content when the power fails
        finally:
            os.close(descriptor)
        return str(hasher.hexdigest())
