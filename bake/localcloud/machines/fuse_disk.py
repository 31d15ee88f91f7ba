"""A FUSE file system of one file: a disk whose blocks are slow when they are first read.

`python -m bake.localcloud.machines.fuse_disk DISK FILE` mounts it at FILE and ends when it is unmounted. It
asks blocks.py when a block is there.

It speaks the kernel's protocol itself (linux/fuse.h, fuse(4)): a root that is a regular file needs few of its
calls, and so neither libfuse nor a package for it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bake.localcloud.machines.blocks import Blocks

_THREADS = 64  # parallel reads; a deep queue must be faster, as on EBS
# A request's bytes: as much as a block, since each request costs as much time whatever its size.
_MOST, _MAX_PAGES = 512 << 10, 128
_REQUEST, _ANSWER = struct.Struct("IIQQIIII"), struct.Struct("IiQ")
_GETATTR, _OPEN, _READ, _WRITE, _STATFS, _FSYNC, _FLUSH, _INIT, _FALLOCATE = 3, 14, 15, 16, 17, 20, 25, 26, 43
_RELEASE, _ACCESS, _DESTROY = 18, 34, 38
_UNANSWERED = {2, 36, 42}  # FORGET, INTERRUPT, BATCH_FORGET
# Parallel reads, also direct ones of one file, of many pages.
_ASYNC_READ, _BIG_WRITES, _ASYNC_DIO, _HAS_MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
_FILE_MODE = 0o100600


class FuseDisk:
    """Answers the kernel's requests for one disk, on as many threads as may wait."""

    def __init__(self, device: int, disk: Path, blocks: Blocks) -> None:
        self._device = device
        self._disk = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
        self._blocks = blocks
        nothing: Callable[[memoryview], bytes] = lambda body: b""  # noqa: E731
        self._calls: dict[int, Callable[[memoryview], bytes | memoryview]] = {
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
        buffer = memoryview(bytearray(_MOST + 4096))  # of requests, and of what is read
        while True:
            try:
                os.readv(self._device, [buffer])
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:  # the request was withdrawn
                    continue
                raise
            _, call, unique, *_ = _REQUEST.unpack_from(buffer)
            if call not in _UNANSWERED:
                self._answer(unique, *self._result(call, buffer[_REQUEST.size :]))

    def _result(self, call: int, body: memoryview) -> tuple[int, bytes | memoryview]:
        """The error number or 0, and the answer, which may lie in `body`."""
        handler = self._calls.get(call)
        if handler is None:
            return errno.ENOSYS, b""
        try:
            return 0, handler(body)
        except OSError as error:
            return error.errno or errno.EIO, b""
        except Exception:  # any: whoever waits for the answer would wait for ever
            traceback.print_exc()
            return errno.EIO, b""

    def _answer(self, unique: int, error: int, content: bytes | memoryview) -> None:
        head = _ANSWER.pack(_ANSWER.size + len(content), -error, unique)
        with suppress(FileNotFoundError):  # the request was withdrawn
            os.writev(self._device, [head, content])

    def _init(self, body: memoryview) -> bytes:
        _, minor, read_ahead, offered = struct.unpack_from("IIII", body)
        flags = offered & (_ASYNC_READ | _BIG_WRITES | _ASYNC_DIO | _HAS_MAX_PAGES)
        kept = (7, min(minor, 31), read_ahead, flags, _THREADS, _THREADS, _MOST, 1, _MAX_PAGES)
        return struct.pack("IIIIHHIIHHI7I", *kept, 0, 0, *[0] * 7)

    def _attributes(self, _body: memoryview) -> bytes:
        found = os.fstat(self._disk)
        attributes = (1, found.st_size, found.st_blocks, 0, 0, 0, 0, 0, 0, _FILE_MODE, 1, 0, 0, 0, 4096, 0)
        return struct.pack("QII6Q10I", 3600, 0, 0, *attributes)

    def _read(self, body: memoryview) -> memoryview:
        _, offset, size = struct.unpack_from("QQI", body)
        self._blocks.fetch(offset, size, read=True)
        return body[: os.preadv(self._disk, [body[:size]], offset)]

    def _write(self, body: memoryview) -> bytes:
        _, offset, size = struct.unpack_from("QQI", body)
        self._blocks.fetch(offset, size, read=False)  # writing a part of a block needs the whole block
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


def main(disk: Path, file: Path) -> None:
    """Mount `disk` at `file` and serve it until it is unmounted."""
    blocks = Blocks(disk)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode={_FILE_MODE:o},user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bake-lazy", os.fsencode(file), b"fuse", 0, options.encode()) != 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}: is there FUSE in this kernel?")
    threading.Thread(target=blocks.fill, daemon=True).start()
    FuseDisk(device, disk, blocks).serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
