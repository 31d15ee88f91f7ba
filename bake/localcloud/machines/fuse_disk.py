"""A FUSE file system of one file: a disk whose blocks are slow when they are first read.

`python -m bake.localcloud.machines.fuse_disk DISK FILE RATE` mounts it at FILE and ends when it is unmounted.
It speaks the kernel's protocol itself (linux/fuse.h, fuse(4)): a root that is a regular file needs few of its
calls, and so neither libfuse nor a package for it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bake.localcloud.machines import disks

BLOCK = 512 << 10  # bytes fetched at once, as EBS fetches blocks of a snapshot
# Reads in parallel are at most so many times as fast as reads in sequence: EBS has given 100 to 140 MB/s
# against 5 to 20.
DEEP = 8
_THREADS = 64  # parallel reads; a deep queue must be faster, as on EBS
_MAX_WRITE, _MAX_PAGES = 128 << 10, 256
_REQUEST, _ANSWER = struct.Struct("IIQQIIII"), struct.Struct("IiQ")
_GETATTR, _OPEN, _READ, _WRITE, _STATFS, _FSYNC, _FLUSH, _INIT, _FALLOCATE = 3, 14, 15, 16, 17, 20, 25, 26, 43
_RELEASE, _ACCESS, _DESTROY = 18, 34, 38
_UNANSWERED = {2, 36, 42}  # FORGET, INTERRUPT, BATCH_FORGET
# Parallel reads, also direct ones of one file, of up to 256 pages.
_ASYNC_READ, _BIG_WRITES, _ASYNC_DIO, _HAS_MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
_FILE_MODE = 0o100600


class Blocks:
    """The time at which each block is there: at once, or `seconds` after its first read.

    Only what the disk held when it was made comes lazily; what was never written has nothing to fetch. Which
    blocks are filled stands in the file `memory`, a byte each, so that a reboot does not empty the volume.
    """

    def __init__(self, disk: Path, memory: Path, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._coming: dict[int, float] = {}
        self._last = 0.0  # when the last requested block arrives
        if not memory.exists():
            memory.write_bytes(_filled(disk))
        with memory.open("r+b") as file:
            self._filled = mmap.mmap(file.fileno(), 0)

    def fetch(self, offset: int, size: int) -> None:
        """Wait until these bytes are there. Blocks arrive in parallel, up to a limit."""
        now = time.monotonic()
        with self._lock:
            numbers = range(offset // BLOCK, (offset + max(1, size) - 1) // BLOCK + 1)
            for number in numbers:
                if not self._filled[number]:
                    self._filled[number] = 1
                    self._last = max(now, self._last) + self._seconds / DEEP
                    self._coming[number] = max(now + self._seconds, self._last)
            latest = max(self._coming.get(number, now) for number in numbers)
        if latest > now:
            time.sleep(latest - now)


def _filled(disk: Path) -> bytes:
    """One byte per block: 0 if the disk holds data there, 1 if not."""
    size = disk.stat().st_size
    filled = bytearray(b"\1") * (size // BLOCK + 1)
    with disk.open("rb") as file:
        for start, end in disks.extents(file.fileno(), size):
            for number in range(start // BLOCK, (end - 1) // BLOCK + 1):
                filled[number] = 0
    return bytes(filled)


class FuseDisk:
    """Answers the kernel's requests for one disk, on as many threads as may wait."""

    def __init__(self, device: int, disk: Path, blocks: Blocks) -> None:
        self._device = device
        self._disk = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
        self._blocks = blocks
        nothing: Callable[[memoryview], bytes] = lambda body: b""  # noqa: E731
        self._calls: dict[int, Callable[[memoryview], bytes]] = {
            _INIT: self._init,
            _GETATTR: self._attributes,
            _OPEN: lambda body: struct.pack("QIi", 1, 0, 0),
            _READ: self._read,
            _WRITE: self._write,
            _FALLOCATE: self._fallocate,
            _STATFS: self._statfs,
            _FSYNC: nothing,  # like barrier=0 of the other disks: none has to survive a power cut
            **dict.fromkeys((_FLUSH, _RELEASE, _ACCESS, _DESTROY), nothing),
        }

    def serve(self) -> None:
        """Answer until the file is unmounted."""
        threads = [threading.Thread(target=self._loop) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _loop(self) -> None:
        buffer = memoryview(bytearray(_MAX_WRITE + 4096))
        while True:
            try:
                length = os.readv(self._device, [buffer])
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:  # the request was withdrawn
                    continue
                raise
            _, call, unique, *_ = _REQUEST.unpack_from(buffer)
            if call not in _UNANSWERED:
                self._answer(unique, *self._result(call, buffer[_REQUEST.size : length]))

    def _result(self, call: int, body: memoryview) -> tuple[int, bytes]:
        """The error number or 0, and the answer."""
        handler = self._calls.get(call)
        if handler is None:
            return errno.ENOSYS, b""
        try:
            return 0, handler(body)
        except OSError as error:
            return error.errno or errno.EIO, b""

    def _answer(self, unique: int, error: int, content: bytes) -> None:
        head = _ANSWER.pack(_ANSWER.size + len(content), -error, unique)
        with suppress(FileNotFoundError):  # the request was withdrawn
            os.writev(self._device, [head, content])

    def _init(self, body: memoryview) -> bytes:
        _, minor, read_ahead, offered = struct.unpack_from("IIII", body)
        flags = offered & (_ASYNC_READ | _BIG_WRITES | _ASYNC_DIO | _HAS_MAX_PAGES)
        kept = (7, min(minor, 31), read_ahead, flags, _THREADS, _THREADS, _MAX_WRITE, 1, _MAX_PAGES)
        return struct.pack("IIIIHHIIHHI7I", *kept, 0, 0, *[0] * 7)

    def _attributes(self, _body: memoryview) -> bytes:
        found = os.fstat(self._disk)
        attributes = (1, found.st_size, found.st_blocks, 0, 0, 0, 0, 0, 0, _FILE_MODE, 1, 0, 0, 0, 4096, 0)
        return struct.pack("QII6Q10I", 3600, 0, 0, *attributes)

    def _read(self, body: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("QQI", body)
        self._blocks.fetch(offset, size)
        return os.pread(self._disk, size, offset)

    def _write(self, body: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("QQI", body)
        self._blocks.fetch(offset, size)  # writing a part of a block needs the whole block
        return struct.pack("II", os.pwrite(self._disk, body[40 : 40 + size], offset), 0)

    def _fallocate(self, body: memoryview) -> bytes:
        _, offset, length, mode = struct.unpack_from("QQQI", body)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fallocate64(self._disk, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")
        return b""

    def _statfs(self, _body: memoryview) -> bytes:
        found = os.fstatvfs(self._disk)
        sizes = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("5Q4I6I", *sizes, found.f_bsize, 255, found.f_frsize, 0, *[0] * 6)


def main(disk: Path, file: Path, rate: float) -> None:
    """Mount `disk` at `file` and serve it until it is unmounted."""
    blocks = Blocks(disk, disk.with_name("filled"), BLOCK / (rate * 1e6))
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode={_FILE_MODE:o},user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bake-lazy", os.fsencode(file), b"fuse", 0, options.encode()) != 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}: is there FUSE in this kernel?")
    FuseDisk(device, disk, blocks).serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
