"""Volumes and snapshots as sparse files: raw ext4 of the requested size, occupying only what is written."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bake.errors import BakeError
from bake.localcloud import host

GIB = 1 << 30
_FICLONE = 0x40049409  # linux/fs.h: share the blocks where the file system can (btrfs, xfs)
_CHUNK = 32 << 20


def clone(source: Path, target: Path, progress: Callable[[int], None] = lambda percent: None) -> None:
    """Copy a sparse file with its holes. `progress` is called with the percentage of the data copied.

    The target appears under its name only when it is whole.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            if not _reflink(reader.fileno(), writer.fileno()):
                _copy_data(reader.fileno(), writer.fileno(), progress)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise BakeError(
                f"no space left on the file system of {target.parent}",
                hint="make room there, or point BAKE_CACHE and BAKE_LOCAL_STATE elsewhere",
            ) from error
        raise
    progress(100)


def link_or_clone(source: Path, target: Path) -> None:
    """Take a file that nobody writes to again, without copying it where the file system is the same."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        clone(source, target)


def _reflink(reader: int, writer: int) -> bool:
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError:
        return False
    return True


def _copy_data(reader: int, writer: int, progress: Callable[[int], None]) -> None:
    size = os.fstat(reader).st_size
    total = max(1, os.fstat(reader).st_blocks * 512)
    os.ftruncate(writer, size)
    copied = 0
    for start, end in extents(reader, size):
        offset = start
        while offset < end:
            count = _copy_range(reader, writer, min(_CHUNK, end - offset), offset)
            if count == 0:
                raise BakeError("the disk shrank while it was copied")
            offset += count
            copied += count
            progress(min(99, copied * 100 // total))


def _copy_range(reader: int, writer: int, count: int, offset: int) -> int:
    """Let the kernel copy, without reading the data into this process; return how much it copied."""
    try:
        return os.copy_file_range(reader, writer, count, offset, offset)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    os.lseek(writer, offset, os.SEEK_SET)  # between file systems of two kinds
    return os.sendfile(writer, reader, offset, count)


def extents(fd: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """The ranges of a sparse file that hold data, from `start` on."""
    end = start
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole follows
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def used(path: Path) -> int:
    """The bytes that a sparse file occupies."""
    return path.stat().st_blocks * 512


def grow(disk: Path, gib: int) -> None:
    """Make the unmounted disk and its file system `gib` large; it never shrinks."""
    if disk.stat().st_size >= gib * GIB:
        return
    os.truncate(disk, gib * GIB)
    # -f: resize2fs otherwise demands a check of a file system that was mounted since its last check; this one
    # was unmounted cleanly. Growing it offline needs no CAP_SYS_RESOURCE, which containers lack.
    host.run("resize2fs", "-f", disk)


def mount(disk: Path, where: Path) -> None:
    """Mount a disk at `where` over a loop device."""
    where.mkdir(parents=True, exist_ok=True)
    # barrier=0: a rehearsal's disk does not have to survive a power cut, and dpkg's many fsyncs become cheap.
    host.run("mount", "-t", "ext4", "-o", "loop,barrier=0", disk, where)


def unmount(where: Path) -> None:
    """Unmount if it is mounted; the loop device goes with it."""
    deadline = time.monotonic() + 60
    if str(where) in mounted():
        # A mount namespace made in the meantime may hold the mount: write everything to the disk now.
        host.run("sync", "--file-system", where, check=False)
    while str(where) in mounted():
        try:
            host.run("umount", where)
        except BakeError:
            if time.monotonic() > deadline:
                host.run("umount", "--lazy", where)
                return
            time.sleep(0.1)


def mounted() -> dict[str, str]:
    """All mounts here: mount point -> source."""
    points = {}
    for line in (
        Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    ):
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        points[point] = right.split()[1]
    return points


@contextmanager
def frozen(where: Path) -> Iterator[None]:
    """Freeze the mounted file system, so that a copy of its disk is consistent.

    If it can't be frozen, since the machine is going down, the copy is as after a power cut.
    """
    host.run("fsfreeze", "--freeze", where, check=False)
    try:
        yield
    finally:
        host.run("fsfreeze", "--unfreeze", where, check=False)
