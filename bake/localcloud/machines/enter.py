"""Become a machine's nspawn: join its control groups, intercept two of its system calls, then execute it.

Run by path with `python -I -S`, so that it starts in milliseconds: `enter.py SOCKET CGROUP… -- COMMAND…`. The
file descriptor on which the kernel reports the calls is sent over the inherited SOCKET.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys
from pathlib import Path

# linux/audit.h, linux/fs.h; numbers of system calls by machine: seccomp, ioctl, sethostname.
ARCHITECTURES = {"x86_64": (0xC000003E, 317, 16, 170), "aarch64": (0xC00000B7, 277, 29, 161)}
FITRIM = 0xC0185879

# linux/seccomp.h and linux/filter.h
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def main(arguments: list[str]) -> None:
    """Join, install, send, execute; ends with a message where one of them fails."""
    split = arguments.index("--")
    channel, *groups = arguments[:split]
    for group in groups:
        Path(group).write_text(str(os.getpid()))
    with socket.socket(fileno=int(channel)) as out:
        listener = intercept()
        socket.send_fds(out, [b"."], [listener])
        os.close(listener)
    command = arguments[split + 1 :]
    os.execvp(command[0], command)  # noqa: S606


def intercept() -> int:
    """Intercept FITRIM and sethostname in this process and all its children; return the listener."""
    architecture, seccomp, ioctl, sethostname = ARCHITECTURES[platform.machine()]
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, _ARCHITECTURE),
            (_EQUAL, 0, 6, architecture),
            (_LOAD, 0, 0, _NUMBER),
            (_EQUAL, 3, 0, sethostname),
            (_EQUAL, 0, 3, ioctl),
            (_LOAD, 0, 0, _SECOND_ARGUMENT),
            (_EQUAL, 0, 1, FITRIM),
            (_RETURN, 0, 0, _NOTIFY),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    filter_ = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // 8, ctypes.cast(filter_, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    # Without no_new_privs, which root may omit, so that sudo works in a machine.
    listener = int(libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(described)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "this kernel does not tell of system calls (seccomp)")
    return listener


if __name__ == "__main__":
    main(sys.argv[1:])
