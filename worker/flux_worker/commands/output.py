"""Write images to files (atomically), standard output, pipes and devices.

Outputs are opened, and disk space is reserved, before any image is generated.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Protocol

import click

_STDOUT_NAMES = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_RESERVING = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}  # unsupported by the file system, or a pipe


class Output(Protocol):
    """The destination of one image."""

    name: str

    def begin(self) -> None:
        """Open it. Raises OSError if it is not writable. The caller registers `close` before."""

    def write(self, content: bytes) -> None:
        """Write the image. Raises OSError, which leaves an existing file unchanged."""

    def save_elsewhere(self, content: bytes, suffix: str) -> Path | None:
        """Save an image elsewhere after `write` failed; None if there is no space anywhere."""

    def close(self) -> None:
        """Close it and remove temporary files."""


def is_stdout(out: Path) -> bool:
    """Whether this name means standard output."""
    return str(out) in _STDOUT_NAMES


def takes_one(out: Path) -> bool:
    """Whether this is standard output, a pipe or a device, which can hold one image only."""
    return is_stdout(out) or _is_special(out)


def shown(out: Path) -> str:
    """The output's name in messages."""
    return "standard output" if is_stdout(out) else str(out)


@contextlib.contextmanager
def opened(files: list[Path], room: int) -> Iterator[list[Output]]:
    """An output for each file, with `room` bytes reserved on disk.

    Raises click.BadParameter and click.ClickException if one is not writable. Temporary files are removed,
    whatever ends the block.
    """
    with contextlib.ExitStack() as end:
        end.enter_context(_cleaned_up_when_ended())
        outputs: list[Output] = []
        for file in files:
            try:
                output = _output(file, room)
                # Before begin(), since a signal may arrive just when the file is created.
                end.callback(output.close)
                output.begin()
            except OSError as error:
                raise _not_writable(file, error) from error
            outputs.append(output)
        yield outputs


def _output(file: Path, room: int) -> Output:
    if is_stdout(file):
        return _Stdout()
    if _is_special(file):
        return _Special(file)
    return _Replaced(file, room)


def _is_special(file: Path) -> bool:
    try:
        mode = file.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _not_writable(file: Path, error: OSError) -> click.ClickException:
    message = f"{shown(file)} is not writable: {error.strerror}"
    if error.errno in _FULL:
        return click.ClickException(message)
    return click.BadParameter(message, param_hint="--out")


class _Stdout:
    """Standard output; anything else that is printed meanwhile, also by libraries, goes to stderr."""

    name = "standard output"

    def __init__(self) -> None:
        self._kept: int | None = None

    def begin(self) -> None:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        if os.isatty(1):
            raise OSError(errno.EINVAL, "it is a terminal")
        sys.stdout.flush()
        self._kept = os.dup(1)
        os.dup2(2, 1)

    def write(self, content: bytes) -> None:
        assert self._kept is not None
        _write_all(self._kept, content)

    def save_elsewhere(self, content: bytes, suffix: str) -> Path | None:
        return _save_elsewhere(content, suffix)

    def close(self) -> None:
        if self._kept is not None:
            sys.stdout.flush()
            os.dup2(self._kept, 1)
            os.close(self._kept)


class _Special:
    """A pipe or a device. A named pipe is opened only to write, since opening it may block."""

    def __init__(self, file: Path) -> None:
        self.name = str(file)
        self._descriptor: int | None = None

    def begin(self) -> None:
        _assert_writable(Path(self.name))
        if not Path(self.name).is_fifo():
            self._descriptor = os.open(self.name, os.O_WRONLY)

    def write(self, content: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self.name, os.O_WRONLY)
        _write_all(self._descriptor, content)

    def save_elsewhere(self, content: bytes, suffix: str) -> Path | None:
        return _save_elsewhere(content, suffix)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


class _Replaced:
    """A file, replaced by a temporary one that was written beside it; for a link, its target."""

    def __init__(self, file: Path, room: int) -> None:
        self.name = str(file)
        self._mode = _mode_of(file)
        self._target = Path(os.path.realpath(file))
        self._room = room
        self._descriptor = -1
        self._complete = False
        # A short name, since the final one may have the maximum length.
        self._temporary: Path | None = self._target.with_name(f".flux-{secrets.token_hex(4)}.part")

    def begin(self) -> None:
        assert self._temporary
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _reserve(self._descriptor, self._room)

    def write(self, content: bytes) -> None:
        _write_all(self._descriptor, content)
        os.ftruncate(self._descriptor, len(content))
        if self._mode is not None:
            os.fchmod(self._descriptor, self._mode)
        os.fsync(self._descriptor)
        self._complete = True
        assert self._temporary
        self._temporary.replace(self._target)
        self._temporary = None

    def save_elsewhere(self, content: bytes, suffix: str) -> Path | None:
        if not self._complete or self._temporary is None:
            os.ftruncate(self._descriptor, 0)  # frees space
            return _save_elsewhere(content, suffix, self._target.parent)
        kept, self._temporary = self._temporary, None
        with contextlib.suppress(OSError):
            return kept.rename(kept.with_name(f"{kept.stem[1:]}{suffix}"))
        return kept

    def close(self) -> None:
        if self._temporary:
            with contextlib.suppress(OSError):  # its folder may be gone
                self._temporary.unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _save_elsewhere(content: bytes, suffix: str, first: Path | None = None) -> Path | None:
    folders = [lambda: first, lambda: Path(tempfile.gettempdir()), Path.cwd, Path.home]
    for folder in folders:
        with contextlib.suppress(OSError, RuntimeError):  # any of them may be missing
            descriptor, name = tempfile.mkstemp(prefix="flux-", suffix=suffix, dir=folder())
            try:
                _write_all(descriptor, content)
                return Path(name)
            except OSError:
                Path(name).unlink()
            finally:
                os.close(descriptor)
    return None


def _mode_of(file: Path) -> int | None:
    """The permissions of an existing file, to be kept; None if there is none. Raises OSError if it is not
    writable or the name is invalid."""
    try:
        found = file.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    _assert_writable(file)
    return stat.S_IMODE(found)


def _assert_writable(file: Path) -> None:
    if not os.access(file, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _reserve(descriptor: int, room: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, room)
    except OSError as error:
        if error.errno not in _NO_RESERVING:
            raise


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


@contextlib.contextmanager
def _cleaned_up_when_ended() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process as Ctrl-C does, after cleaning up."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
