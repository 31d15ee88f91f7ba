"""Reach a machine through a command: SSH is spoken over its stdin and stdout, as with ssh's ProxyCommand.

paramiko's own ProxyCommand ends one process and not those that it started, never reaps it, keeps its stderr
to itself, and takes the end of its output for a pause.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

import paramiko

from bake import interrupt
from bake.errors import BakeError
from bake.redaction import redact

GRACE = 2.0  # seconds for the command and what it started to end on SIGTERM
ENDS = 1.0  # seconds from the end of its output to its own end, which has the exit code
BEAT = 4.0  # seconds between two requests that any sshd answers
# Seconds without a byte after which the machine, or the way to it, counts as lost. Of a direct connection the
# kernel finds that out; of a command it can't.
SILENCE = 20.0
KEPT = 4096  # bytes of its stderr, the last ones
LINES = 5  # of them in an error


class NoWay(OSError):
    """The command does not lead to the machine; it may later, when the machine has booted."""


class Proxy:
    """The command's process as a socket for paramiko; each connection has its own.

    It runs in a session and process group of its own: Ctrl-C does not reach it, and it asks nobody for a
    password. `close` ends the whole group. Reads and writes take as long as `settimeout` says, at most.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self.heard = 0
        """Bytes that have come from the machine."""
        self._process = _started(self.command)
        self._finish = weakref.finalize(self, _end, self._process)
        self._stdin, self._stdout, self._stderr = _pipes(self._process)
        self._read_from = [self._stdout, self._stderr]
        self._closed = False  # paramiko reads this name
        self._timeout = 0.1
        self._said = bytearray()
        self._last, self._limit = time.monotonic(), float("inf")
        self._reading, self._writing, self._ending = threading.Lock(), threading.Lock(), threading.Lock()
        self._over = threading.Event()
        self._why = ""

    def settimeout(self, seconds: float | None) -> None:
        """Let `recv` and `send` raise TimeoutError after so many seconds; None is taken for a few."""
        self._timeout = ENDS if seconds is None else seconds

    def send(self, data: bytes) -> int:
        """Hand some of `data` to the command; return how many bytes it took."""
        with self._writing:
            if self._closed:
                raise BrokenPipeError(errno.EPIPE, "the connection is closed")
            if not _ready([self._stdin], select.POLLOUT, self._timeout):
                raise TimeoutError
            return os.write(self._stdin.fileno(), data)

    def recv(self, size: int) -> bytes:
        """Return what has come, at most `size` bytes; none once the command has ended, or is silent."""
        with self._reading:
            if self._closed:
                return b""
            ready = _ready(self._read_from, select.POLLIN, self._timeout)
            if self._stderr.fileno() in ready:
                self._listen()
            if self._stdout.fileno() in ready:
                return self._received(os.read(self._stdout.fileno(), size))
        if time.monotonic() > self._last + self._limit:
            self._why = self._why or f"nothing came through proxy_command for {self._limit:.0f} s"
            return b""
        raise TimeoutError

    def _received(self, data: bytes) -> bytes:
        if data:
            self._last = time.monotonic()
            self.heard += len(data)
        else:
            self._see_end()
        return data

    def _see_end(self) -> None:
        """Wait a moment for the end of the command, which has closed its output: it has the exit code."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS)
        self._judge("proxy_command closed its output")

    def _judge(self, otherwise: str = "") -> None:
        """Say why there is no connection, unless that is known, or it was closed from here."""
        if self._why or self._closed:
            return
        code = self._process.poll()
        self._why = otherwise if code is None else f"proxy_command ended with {_how(code)}"

    def _listen(self) -> None:
        """Take what it has said on stderr by now, so that it is never held up by that."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._stderr.fileno(), 65536):
                self._said += chunk
                del self._said[:-KEPT]
            self._read_from = [self._stdout]  # closed: it would be ready for ever

    def watch(self, transport: paramiko.Transport) -> None:
        """Count the machine as lost when it is silent; it is asked for an answer now and then."""
        self._last, self._limit = time.monotonic(), SILENCE
        threading.Thread(target=self._beat, args=(transport,), name="proxy", daemon=True).start()

    def _beat(self, transport: paramiko.Transport) -> None:
        """Send what sshd does not know: its refusal shows that it is there."""
        with suppress(paramiko.SSHException, OSError, EOFError):
            while transport.is_active():
                transport.global_request("keepalive@openssh.com")
                if self._over.wait(BEAT):
                    return

    @property
    def told(self) -> str:
        """How it ended, or that it did not answer, and the end of its stderr; without secrets."""
        lines = redact(self._said.decode("utf-8", "replace")).strip().splitlines()[-LINES:]
        said = " / ".join(line.strip() for line in lines)
        why = self._why or ("" if self.heard else "nothing came through proxy_command")
        return ": ".join(part for part in (why, said) if part)

    def close(self) -> None:
        """End the command and all that it started; from any thread, and once is enough."""
        with self._ending:
            if self._closed:
                return
            with _uninterrupted():
                self._judge()
                self._closed = True
                self._over.set()
                self._finish()
                with self._reading, self._writing:
                    self._listen()
                    for pipe in (self._stdin, self._stdout, self._stderr):
                        pipe.close()


def _started(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    pipe, process = subprocess.PIPE, None
    try:
        with _uninterrupted():
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
            )
    except OSError as error:
        raise BakeError(
            f"builder.proxy_command can't be run: {command[0]}: {error.strerror or error}",
            hint="is it installed on this machine, and on PATH?",
        ) from error
    except BaseException:  # a signal that had to wait
        if process is not None:
            _end(process)
        raise
    else:
        return process


def _pipes(process: subprocess.Popen[bytes]) -> list[IO[bytes]]:
    pipes = [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]
    for pipe in pipes:
        os.set_blocking(pipe.fileno(), False)
    return pipes


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let a signal wait, which comes in the main thread only, so that no process is lost sight of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with interrupt.deferred():
        yield


def _ready(pipes: Sequence[IO[bytes]], event: int, seconds: float) -> set[int]:
    """The descriptors that can be used, or have ended, within so many seconds."""
    looking = select.poll()
    for pipe in pipes:
        looking.register(pipe, event)
    return {number for number, _ in looking.poll(seconds * 1000)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the process group to end, and make it; a program that has changed its user is left alone."""
    deadline = time.monotonic() + GRACE
    _signal(process, signal.SIGTERM)
    while time.monotonic() < deadline and _signal(process, 0):
        process.poll()
        time.sleep(0.02)
    _signal(process, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the process group; return whether there was somebody to send it to."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def by_hand(command: Sequence[str]) -> str:
    """The command as people type it."""
    return redact(shlex.join(command))
