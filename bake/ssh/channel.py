"""Run one command over a connection: its channel, its streams, and where its own output begins."""

from __future__ import annotations

import secrets
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import paramiko

from bake.waits import Wait

# The only variables of a command, whatever a login shell, PAM or sudo set. The system's own programs come
# first, since a python3 or git below /usr/local may be of any version.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
CLEAN = (
    "umask 022; exec /usr/bin/env -i "
    f'PATH={PATH} LC_ALL=C.UTF-8 HOME="$HOME" USER="$USER" LOGNAME="$USER" SHELL=/bin/sh "$@"'
)
AS_ROOT = ("sudo", "-n", "--", "/bin/sh", "-c", CLEAN, "sh")
REFUSED = 60.0  # seconds for which sshd may refuse a channel although none is open
BEGINS = 40.0  # seconds until the first command of a connection must begin: some shells loop forever


class Slots:
    """Limits open channels to the machine's MaxSessions, which is learned from its first refusal.

    Slots are given in the order of asking, so that a thread that polls can't starve the others.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._open = 0
        self._limit: int | None = None

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one of the slots."""
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            try:
                self._condition.wait_for(lambda: self._queue[0] is ticket and self._is_free())
                self._open += 1
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._open -= 1
                self._condition.notify_all()

    def _is_free(self) -> bool:
        return self._limit is None or self._open < self._limit

    def refused(self) -> bool:
        """Learn the limit from a refusal; return whether other channels were the reason."""
        with self._condition:
            others = self._open - 1
            self._limit = max(others, 1)
            return others > 0


Streams = tuple[bytes, bytes]


@dataclass
class Channels:
    """Runs command lines over one connection, as many at once as the machine allows."""

    slots: Slots = field(default_factory=Slots)
    proved: bool = False
    """Whether a command has begun, which proves that the login shell runs commands."""

    def run(self, transport: paramiko.Transport, command: str, stdin: bytes | None, wait: Wait) -> Ended:
        """Run a command line of `/bin/sh` to its end."""
        mark = secrets.token_hex(8)
        line = _line(command, mark)
        deadline = time.monotonic() + REFUSED
        while True:
            with self.slots.one():
                try:
                    channel = transport.open_session(timeout=REFUSED)
                except paramiko.ChannelException:
                    if not self.slots.refused() and time.monotonic() > deadline:
                        raise
                else:
                    with channel:
                        channel.exec_command(line)
                        streams = self._exchange(channel, stdin, mark.encode())
                        ended = _ended(channel.recv_exit_status(), *streams, mark)
                        self.proved = self.proved or ended.began
                        return ended
            wait.pause(0.1)  # sshd still counts a channel for a moment after it is closed

    def _exchange(self, channel: paramiko.Channel, stdin: bytes | None, mark: bytes) -> Streams:
        """Send and receive; abandon the first command if it does not begin in time."""
        if self.proved:
            return _exchange(channel, stdin)
        late = threading.Timer(BEGINS, channel.close)
        late.start()
        try:
            return _exchange(channel, stdin, mark, late.cancel)
        finally:
            late.cancel()


@dataclass(frozen=True)
class Ended:
    """Result of a command; `began` says whether it ran at all. The streams are the command's own output."""

    exit_code: int
    stdout: str
    stderr: str
    began: bool


def _line(command: str, mark: str) -> str:
    """Build the line for the login shell, whichever it is: plain words in single quotes.

    The mark is printed in two parts, so that a shell that echoes its commands (`set -x`) does not print it.
    """
    half = len(mark) // 2
    say = f"printf '%s%s\\n' {mark[:half]} {mark[half:]}"
    script = f"{say}; {say} >&2; {CLEAN}"
    return "exec " + shlex.join(("/bin/sh", "-c", script, "sh", "/bin/sh", "-c", command))


def _ended(code: int, stdout: bytes, stderr: bytes, mark: str) -> Ended:
    """Drop what the login shell printed before the command began."""
    line = f"{mark}\n".encode()
    before, began, said = stdout.partition(line)
    if not began:
        said = before
    _, marked, complained = stderr.partition(line)
    if not marked:
        complained = stderr
    return Ended(code, said.decode("utf-8", "replace"), complained.decode("utf-8", "replace"), bool(began))


def _exchange(
    channel: paramiko.Channel,
    stdin: bytes | None,
    mark: bytes = b"",
    on_mark: Callable[[], None] = lambda: None,
) -> Streams:
    """Send stdin and read both streams concurrently, so that neither side blocks the other."""
    stderr = bytearray()

    def drain_stderr() -> None:
        while chunk := channel.recv_stderr(65536):
            stderr.extend(chunk)

    def feed() -> None:
        try:
            if stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
        except OSError:
            pass  # the command ended without reading its input; its exit code decides

    threads = [threading.Thread(target=work, daemon=True) for work in (drain_stderr, feed)]
    for thread in threads:
        thread.start()
    stdout = bytearray()
    while chunk := channel.recv(65536):
        stdout.extend(chunk)
        if mark and mark in stdout:
            on_mark()
            mark = b""
    for thread in threads:
        thread.join()
    return bytes(stdout), bytes(stderr)
