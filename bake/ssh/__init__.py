"""One SSH connection to a machine, with its host keys pinned.

Remote commands are argument lists, quoted only here. Secrets go in by `stdin`. Commands inherit nothing from
the machine that can be set: each has umask 022, a clean environment and `/bin/sh`. What a login shell prints
itself is not part of a command's output.
"""

from __future__ import annotations

import shlex
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType

import paramiko

from bake.errors import BakeError, ConnectionLost, RemoteCommandError
from bake.progress import Tally
from bake.redaction import redact
from bake.ssh.channel import AS_ROOT, Channels, Ended
from bake.ssh.login import Login
from bake.ssh.opening import Opening, Watch, end, nobody_watches
from bake.ssh.proxy import Proxy
from bake.waits import Wait

__all__ = ["CommandResult", "Login", "NoShell", "Session", "connect"]

TAIL_LINES = 25
SHORT = 60  # characters of a command in what is waited for
REBOOT_SECONDS = 300  # a machine that restarts checks its disks first
RECONNECTS = 5  # for one command
DYING_SECONDS = 10  # until a broken connection is reported as such
KILLED = -1  # paramiko's exit status for a command that a signal ended


@dataclass(frozen=True)
class CommandResult:
    """Result of a remote command; `seconds` is wall time on the controller."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    def check(self) -> CommandResult:
        """Return self, or raise RemoteCommandError with the command and the end of both streams."""
        if self.exit_code == 0:
            return self
        how = (
            "was killed by a signal"
            if self.exit_code == KILLED
            else f"failed with exit code {self.exit_code}"
        )
        parts = [f"command {how}: {shlex.join(self.argv)}"]
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            tail = text.strip().splitlines()[-TAIL_LINES:]
            parts += [f"  {name}: (empty)"] if not tail else [f"  {name}:", *(f"    {line}" for line in tail)]
        raise RemoteCommandError("\n".join(parts))


class NoShell(BakeError):
    """The user can log in, but the login shell does not run the command it is given."""


class Session:
    """Runs commands on one machine over one connection; safe to use from several threads."""

    def __init__(
        self, client: paramiko.SSHClient, login: Login, tally: Tally, watch: Watch = nobody_watches
    ) -> None:
        self._client = client
        self._channels = Channels()
        self._watch = watch
        self._reconnect_lock = threading.Lock()
        self._closed = False
        self.login = login
        self.tally = tally

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; no command runs after that."""
        self._closed = True
        if transport := self._client.get_transport():
            end(transport)

    def run(
        self,
        *argv: str,
        stdin: bytes | None = None,
        sudo: bool = False,
        check: bool = True,
        again: bool = True,
    ) -> CommandResult:
        """Run one command and wait for it.

        `sudo` runs it as root without a password prompt. With `check`, a non-zero exit raises
        RemoteCommandError. Secrets go in by `stdin`, which reaches no log and no argument list. If the
        connection is lost, the command runs again over a new one, so it must be idempotent, even while the
        first one is still running; unless `again` is False.
        """
        full = ("sudo", "-n", *argv) if sudo else argv
        line = f"exec {shlex.join((*AS_ROOT, *argv) if sudo else argv)}"
        result = self.run_shell(line, stdin=stdin, argv=full) if again else self._once(line, stdin, full)
        return result.check() if check else result

    def run_shell(
        self, command: str, *, stdin: bytes | None = None, argv: tuple[str, ...] | None = None
    ) -> CommandResult:
        """Run a line of `/bin/sh`, again if the connection is lost; `argv` is how it is shown.

        For testinfra, which quotes by itself.
        """
        for _ in range(RECONNECTS):
            try:
                return self._once(command, stdin, argv or (command,))
            except ConnectionLost:
                self.reconnect()
        return self._once(command, stdin, argv or (command,))

    def _once(self, command: str, stdin: bytes | None, shown: tuple[str, ...]) -> CommandResult:
        started = time.monotonic()
        self.tally.ssh_commands += 1
        try:
            with self.tally.waiting(f"{_short(shown)} on {self.login.address}") as wait:
                ended = self._run(command, stdin, wait)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLost(
                f"the SSH connection to {self.login.address} broke while running: {shlex.join(shown)}\n"
                f"  {self._why(error)}"
            ) from error
        if not ended.began:
            raise _no_shell(self.login, ended)
        return CommandResult(shown, ended.exit_code, ended.stdout, ended.stderr, time.monotonic() - started)

    def _run(self, command: str, stdin: bytes | None, wait: Wait) -> Ended:
        transport = self._client.get_transport()
        if transport is None:
            raise EOFError("the connection is closed")
        try:
            ended = self._channels.run(transport, command, stdin, wait)
        except (EOFError, OSError):
            end(transport)  # its own thread may not have noticed yet, and then nobody would reconnect
            raise
        # No exit status: a signal killed the command, or the connection is gone.
        if ended.exit_code == KILLED and _is_lost(transport):
            raise EOFError("the connection closed before the command's exit code came")
        return ended

    def _why(self, error: Exception) -> str:
        """Why the connection broke, also as the command tells through which it goes."""
        transport = self._client.get_transport()
        told = transport.sock.told if transport and isinstance(transport.sock, Proxy) else ""
        return ": ".join(part for part in (str(error), told) if part)

    def reconnect(self) -> None:
        """Reconnect with the same pinned host keys, if the machine still runs."""
        with self._reconnect_lock:
            if self._closed:
                raise BakeError(f"the session with {self.login.address} is over")
            transport = self._client.get_transport()
            if transport is not None and transport.is_active():
                return  # another thread has reconnected
            self._watch()
            if transport is not None:
                end(transport)
            opening = Opening(self.login, REBOOT_SECONDS, watch=self._watch, known=True)
            with self.tally.waiting(f"SSH to {self.login.address} again", REBOOT_SECONDS) as wait:
                self._client, _ = opening.open(wait)


def _short(argv: tuple[str, ...]) -> str:
    """The beginning of a command, on one line; a secret that is cut in two would not be known as one."""
    line = " ".join(redact(shlex.join(argv)).split())
    return line if len(line) <= SHORT else f"{line[:SHORT]}…"


def _is_lost(transport: paramiko.Transport) -> bool:
    """Whether the connection is gone; a breaking one closes its channels a moment earlier."""
    transport.join(DYING_SECONDS)
    return not transport.is_active()


def _no_shell(login: Login, ended: Ended) -> NoShell:
    """Make the error, with the last lines of what came instead."""
    how = "did not end" if ended.exit_code == KILLED else f"ended with {ended.exit_code}"
    said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-5:]
    return NoShell(
        f"the login shell of {login.user} on {login.address} does not run what it is given: it {how} "
        f"and said {' / '.join(said) or 'nothing'}",
        hint="a .bashrc, a file in /etc/profile.d or ForceCommand of the base AMI runs another program or "
        "exits. Have it do so for interactive shells only: case $- in *i*) … esac; or name another base AMI",
    )


def connect(
    login: Login,
    tally: Tally | None = None,
    *,
    timeout: float = 300,
    other_users: tuple[str, ...] = (),
    watch: Watch = nobody_watches,
) -> Session:
    """Connect as soon as the machine answers, within `timeout` seconds.

    The host key must be one of those in `login`. Any other key fails at once: it is another machine's, and
    waiting does not help. If the machine keeps refusing the user, `other_users` are tried; the session's
    `login` has the user that worked. `watch` is called now and then while there is no connection, and raises
    BakeError once the machine no longer runs.
    """
    tally = tally or Tally()
    with tally.waiting(f"SSH to {login.address}", timeout) as wait:
        client, user = Opening(login, timeout, other_users, watch).open(wait)
    return Session(client, replace(login, user=user), tally, watch)
