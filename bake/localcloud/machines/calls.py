"""Answer two system calls for a machine: one that it may not make, and one in which it has to wait.

A machine's root is not the host's, so the kernel refuses it FITRIM, by which fstrim returns freed blocks. The
daemon makes that call for it, on the machine's own file system only. And init must not run before its network
is there: nspawn sets the host name (sethostname) just before, and is held in that call until the network is
attached. The calls arrive as seccomp user notifications (seccomp_unotify(2)): the image needs no support.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import select
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bake.localcloud.machines.enter import ARCHITECTURES, FITRIM

log = logging.getLogger(__name__)

# linux/seccomp.h: struct seccomp_notif, struct seccomp_notif_resp.
_NOTIFICATION, _ANSWER = "QIIiIQ6Q", "QqiI"
_RECEIVE, _SEND, _STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1
_RANGE = "QQQ"  # linux/fs.h: struct fstrim_range
_SYS_ADMIN = 1 << 21


@dataclass(frozen=True)
class Call:
    """A system call that waits for its answer; `thread` is the caller's id on the host."""

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


class Calls:
    """A thread that answers one machine's calls until the machine is off.

    `plug` is called once with init's pid, before init runs; `root` is where its disk is mounted.
    """

    def __init__(self, listener: int, root: Path, plug: Callable[[int], None]) -> None:
        self._listener = listener
        self._root = root
        self._plug = plug
        self._init: int | None = None
        self.failure: Exception | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        try:
            while True:
                [(_, events)] = poll.poll()
                if not events & select.POLLIN:  # the last process of the machine is gone
                    return
                with suppress(FileNotFoundError):  # the caller has died
                    self._answer(self._receive())
        except OSError:
            log.exception("system calls of the machine at %s", self._root)
        finally:
            os.close(self._listener)

    def _receive(self) -> Call:
        content = bytearray(struct.calcsize(_NOTIFICATION))
        fcntl.ioctl(self._listener, _RECEIVE, content)
        identity, thread, _, number, _, _, *arguments = struct.unpack(_NOTIFICATION, content)
        return Call(identity, thread, number, tuple(arguments))

    def _answer(self, call: Call) -> None:
        value, error, flags = 0, 0, 0
        _, _, _, sethostname = ARCHITECTURES[platform.machine()]
        try:
            if call.number == sethostname:
                self._named(call)
                flags = _CONTINUE  # the kernel itself decides whether the caller may do it
            else:
                self._trim(call)
        except OSError as refused:
            error = refused.errno or errno.EIO
        except Exception as failure:  # any: a call without an answer would block the machine for ever
            self.failure, error = failure, errno.EIO
        answer = struct.pack(_ANSWER, call.id, value, -error, 0 if error else flags)
        fcntl.ioctl(self._listener, _SEND, answer)

    def _named(self, call: Call) -> None:
        """The first call comes from nspawn's own process, which becomes init."""
        if self._init is None:
            self._init = call.thread
            self._plug(call.thread)

    def _trim(self, call: Call) -> None:
        """Make FITRIM for the caller as the kernel would for real root, with the same errors."""
        process = Path(f"/proc/{call.thread}")
        if not self._is_root(process):
            raise PermissionError(errno.EPERM, "FITRIM is root's")
        if os.stat(process / "fd" / str(_int(call.arguments[0]))).st_dev != self._root.stat().st_dev:  # noqa: PTH116
            raise OSError(errno.EOPNOTSUPP, "a file system that is not the machine's disk")
        with (process / "mem").open("r+b", buffering=0) as memory:
            fcntl.ioctl(self._listener, _STILL_VALID, struct.pack("Q", call.id))  # and this its memory
            memory.seek(call.arguments[2])
            asked = bytearray(memory.read(struct.calcsize(_RANGE)))
            top = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.ioctl(top, FITRIM, asked)
            finally:
                os.close(top)
            fcntl.ioctl(self._listener, _STILL_VALID, struct.pack("Q", call.id))
            memory.seek(call.arguments[2])
            memory.write(asked)

    def _is_root(self, process: Path) -> bool:
        """Whether the caller is the machine's root; root of a namespace inside the machine is not."""
        status = (process / "status").read_text()
        [effective] = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
        users = (process / "ns/user").stat().st_ino == Path(f"/proc/{self._init}/ns/user").stat().st_ino
        return users and bool(int(effective, 16) & _SYS_ADMIN)


def _int(argument: int) -> int:
    """A file descriptor from a register: its lower half, signed."""
    return int(struct.unpack("i", struct.pack("I", argument & 0xFFFFFFFF))[0])
