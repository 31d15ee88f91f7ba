"""Watch which pages of files come into memory, by mincore(2): that needs no right but to own the files.

fanotify, blktrace and /proc/sys/vm/drop_caches are out of reach in a container. Of a small file nothing is
said page by page: one read brings all of it.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tracing.ranges import GAP, WHOLE, Range, closed

PAGE = mmap.PAGESIZE
SMALL = 16
"""Pages of a file that is taken as a whole (64 KiB)."""
MOST = 60_000
"""Files: the kernel lets a process have 65,530 mappings (vm.max_map_count)."""
_IN_MEMORY = bytes(value & 1 for value in range(256))
_RUNS, _MISSING = re.compile(b"\1+"), re.compile(b"\0+")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_FAILED = ctypes.c_void_p(-1).value
_MAP_FIXED = 0x10


def _check(failed: bool, call: str) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


@dataclass(frozen=True)
class Watched:
    """A file, and the number of its first page among those of all files."""

    path: str
    size: int
    mtime: int
    first: int

    @property
    def end(self) -> int:
        """The number after that of its last page."""
        return self.first + _pages(self.size)

    def part(self, begin: int, end: int) -> Range:
        """Some of its pages, by their numbers among all."""
        offset = (begin - self.first) * PAGE
        length = min((end - self.first) * PAGE, self.size) - offset
        return Range(self.path, offset, WHOLE if length == self.size else length, self.size, self.mtime)


class Residency:
    """Files that were put out of memory, and the order in which parts of them came back.

    They are mapped one after the other, and none of their pages is touched, so that one call sees them all.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.files: list[Watched] = []
        self.left_out = 0
        """Files that are not watched, since the kernel allows no more mappings."""
        described = list(self._evicted(paths))
        self._pages = self.files[-1].end if self.files else 0
        self._address = self._reserved()
        self._vector = ctypes.create_string_buffer(max(self._pages, 1))
        for file in described:
            self._map(file)
        self._firsts = [file.first for file in self.files]
        self._seen = self._resident()
        self.bytes = self._pages * PAGE
        self.stayed = self._seen.count(1) * PAGE
        """Bytes that could not be put out of memory: dirty, or mapped by another process."""

    def _evicted(self, paths: Iterable[str]) -> Iterator[Watched]:
        """Put files out of memory, and number their pages."""
        end = 0
        for path in paths:
            with _opened(path) as descriptor:
                if descriptor is None or not (found := os.fstat(descriptor)).st_size:
                    continue
                if len(self.files) >= MOST:
                    self.left_out += 1
                    continue
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            file = Watched(path, found.st_size, found.st_mtime_ns, end)
            end = file.end
            self.files.append(file)
            yield file

    def _reserved(self) -> int:
        """Addresses for all files, with nothing there."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = _libc.mmap(None, max(self._pages, 1) * PAGE, 0, flags, -1, 0)
        _check(address == _FAILED, "mmap")
        return int(address)

    def _map(self, file: Watched) -> None:
        with _opened(file.path) as descriptor:
            if descriptor is None:  # gone by now: its pages never come
                return
            at, flags = self._address + file.first * PAGE, mmap.MAP_SHARED | _MAP_FIXED
            _check(_libc.mmap(at, file.size, mmap.PROT_READ, flags, descriptor, 0) == _FAILED, "mmap")

    def _resident(self) -> bytes:
        """One byte a page: 1 where it is in memory."""
        if not self._pages:
            return b""
        _check(_libc.mincore(self._address, self._pages * PAGE, self._vector) != 0, "mincore")
        return ctypes.string_at(self._vector, self._pages).translate(_IN_MEMORY)

    def look(self) -> list[Range]:
        """What came into memory since the last look, file by file."""
        new = int.from_bytes(self._resident(), "little") & ~int.from_bytes(self._seen, "little")
        if not new:
            return []
        seen, runs = bytearray(self._seen), {}
        for one in _RUNS.finditer(new.to_bytes(self._pages, "little")):
            for file, begin, end in self._of_files(*one.span()):
                runs.setdefault(file, []).append((begin, end))
        found = [part for file, come in runs.items() for part in self._come(file, come, seen)]
        self._seen = bytes(seen)
        return found

    def _of_files(self, begin: int, end: int) -> Iterator[tuple[Watched, int, int]]:
        """A run of pages, cut where a file ends."""
        while begin < end:
            file = self.files[bisect.bisect_right(self._firsts, begin) - 1]
            yield file, begin, min(end, file.end)
            begin = file.end

    def _come(self, file: Watched, runs: list[tuple[int, int]], seen: bytearray) -> Iterator[Range]:
        """The ranges of a file that came; a small one as a whole, with what is fetched between two runs."""
        small = file.end - file.first <= SMALL
        for first, last in [(file.first, file.end)] if small else closed(runs, GAP // PAGE):
            for one in _MISSING.finditer(self._seen, first, last):
                begin, end = one.span()
                seen[begin:end] = b"\1" * (end - begin)
                yield file.part(begin, end)

    def close(self) -> None:
        """Unmap all."""
        _libc.munmap(self._address, max(self._pages, 1) * PAGE)


def _pages(size: int) -> int:
    return -(-size // PAGE)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int | None]:
    """Open a file to read; None for a link, and for what is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def written(folder: str) -> None:
    """Write out what is dirty on the folder's file system: only clean pages can be put out of memory."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_libc.syncfs(descriptor) != 0, "syncfs")
    finally:
        os.close(descriptor)


def below(folders: Iterable[str], leave_out: tuple[str, ...] = ()) -> Iterator[str]:
    """The files below folders, by the end of their names; links are not followed."""
    for folder in folders:
        for top, inner, names in os.walk(folder):
            inner.sort()
            yield from (os.path.join(top, name) for name in sorted(names) if not name.endswith(leave_out))
