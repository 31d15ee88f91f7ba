"""Hash each file while it is downloaded, by reading it back from disk."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from prefetch.wanted import File

_BLOCK = 4 << 20
RANGE_BYTES = 8 << 20
"""Of each weights file, so many bytes are also hashed by themselves: a worker reads and checks ranges."""
_RANGED = ".safetensors"
# Sync often: little is left to write at the end, provisioning never waits for gigabytes of dirty pages, and a
# power failure loses little.
_SYNC_EVERY = 64 << 20


class Hashing:
    """Hashes a growing file from disk, in its own thread.

    hashlib lets other threads run while it works, so several files take all cores. Of weights, `ranges` has
    the sha256 of each range once there is a result.
    """

    def __init__(self, path: Path, file: File) -> None:
        self._path = path
        self._file = file
        self._written = 0
        self._given_up = False
        self._digest = ""
        self.ranges: list[str] = []
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
        hasher, ranges = self._file.hasher(), _Ranges(self._file)
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
                room = min(ready, len(buffer), RANGE_BYTES - position % RANGE_BYTES)
                count = os.preadv(descriptor, [buffer[:room]], position)
                if not count:
                    raise OSError(f"{self._path} became shorter while it was hashed")
                hasher.update(buffer[:count])
                position += count
                ranges.add(buffer[:count], ends=position % RANGE_BYTES == 0 or position == self._file.bytes)
                if position - synced >= _SYNC_EVERY:
                    os.fdatasync(descriptor)
                    synced = position
            if not self._given_up:
                os.fsync(descriptor)  # after a power failure a blob's name must not exist without its content
        finally:
            os.close(descriptor)
        self.ranges = ranges.digests
        return str(hasher.hexdigest())


class _Ranges:
    """The sha256 of each range of a weights file; of other files there are none."""

    def __init__(self, file: File) -> None:
        self.digests: list[str] = []
        self._wanted = file.path.endswith(_RANGED)
        self._hasher = hashlib.sha256()

    def add(self, content: memoryview, *, ends: bool) -> None:
        """Add content of the current range, which it `ends` or not."""
        if not self._wanted:
            return
        self._hasher.update(content)
        if ends:
            self.digests.append(self._hasher.hexdigest())
            self._hasher = hashlib.sha256()
