"""Open files of a machine's disk from the host; no link on the disk leads out of it (openat2)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_OPENAT2 = 437  # on all architectures
_IN_ROOT, _NO_MAGICLINKS = 0x10, 0x02  # linux/openat2.h


def leading_out(root: Path, paths: Iterable[str]) -> list[str]:
    """The `paths` below `root` that lead this host to another file than they do where `root` is "/"."""
    return [path for path in paths if _identity(root, path) != _identity(root, path, hosts=True)]


def _identity(root: Path, path: str, *, hosts: bool = False) -> tuple[int, int] | None:
    """Device and inode of the file at a path, or None; the file is not opened for reading."""
    try:
        file = os.open(root / path, os.O_PATH | os.O_CLOEXEC) if hosts else look(root, path)
    except OSError:
        return None
    try:
        facts = os.fstat(file)
        return facts.st_dev, facts.st_ino
    finally:
        os.close(file)


def look(root: Path, path: str, flags: int = 0) -> int:
    """Open a file below `root` as if that were "/" (O_PATH); the caller closes it. OSError without one."""
    libc = ctypes.CDLL(None, use_errno=True)
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC | flags, 0, _IN_ROOT | _NO_MAGICLINKS)
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        found = libc.syscall(_OPENAT2, top, os.fsencode(path), how, len(how))
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(root / path))
        return int(found)
    finally:
        os.close(top)


def replace(root: Path, path: str, content: str) -> None:
    """Write a new file below `root`, in place of whatever has its name. OSError if that fails."""
    parent, _, name = path.rpartition("/")
    where = look(root, parent or ".", os.O_DIRECTORY)
    try:
        temporary = f".{name}.bake"
        with suppress(FileNotFoundError):  # left by a crash
            os.unlink(temporary, dir_fd=where)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=where)
        with os.fdopen(file, "w", encoding="utf-8") as writer:
            writer.write(content)
        os.rename(temporary, name, src_dir_fd=where, dst_dir_fd=where)
    finally:
        os.close(where)
