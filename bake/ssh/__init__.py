"""One SSH connection to a machine, with its host keys pinned.

Remote commands are argument lists, quoted here and nowhere else. Secrets go in by `stdin`. Nothing of the
machine's is taken for granted that can be set: each command has umask 022, a clean environment and `/bin/sh`,
and what a login shell prints of its own is no part of its output.
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
from bake.ssh.channel import AS_ROOT, Channels, Ended
from bake.ssh.login import Login
from bake.ssh.opening import Opening, Watch, nobody_watches

__all__ = ["CommandResult", "Login", "NoShell", "Session", "connect"]

TAIL_LINES = 25
REBOOT_SECONDS = 300  # a machine that restarts checks its disks first
RECONNECTS = 5  # of one command
DYING_SECONDS = 10  # for a connection to say that it is gone
KILLED = -1  # paramiko's exit status of a command that a signal ended


@dataclass(frozen=True)
class CommandResult:
    """What a remote command did. `seconds` is wall time as the controller saw it."""

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
    """The machine lets the user in, and its login shell does not run what it is given."""


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
        """End the connection; nothing is run after that."""
        self._closed = True
        self._client.close()

    def run(
        self, *argv: str, stdin: bytes | None = None, sudo: bool = False, check: bool = True
    ) -> CommandResult:
        """Run one command and wait for it.

        `sudo` runs it as root without a password prompt. With `check`, a non-zero exit raises
        RemoteCommandError. `stdin` is the way for secrets: it reaches no log and no argument list. Where the
        connection is lost, the command is run again over a new one: it must come to the same when it has run
        already, or is still running.
        """
        full = ("sudo", "-n", *argv) if sudo else argv
        line = f"exec {shlex.join((*AS_ROOT, *argv) if sudo else argv)}"
        result = self.run_shell(line, stdin=stdin, argv=full)
        return result.check() if check else result

    def run_shell(
        self, command: str, *, stdin: bytes | None = None, argv: tuple[str, ...] | None = None
    ) -> CommandResult:
        """Run a line of `/bin/sh`, again where the connection is lost; `argv` is how it is shown.

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
            with self.tally.waiting():
                ended = self._run(command, stdin)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLost(
                f"the SSH connection to {self.login.address} broke while running: {shlex.join(shown)}\n"
                f"  {error}"
            ) from error
        if not ended.began:
            raise _no_shell(self.login, ended)
        return CommandResult(shown, ended.exit_code, ended.stdout, ended.stderr, time.monotonic() - started)

    def _run(self, command: str, stdin: bytes | None) -> Ended:
        transport = self._client.get_transport()
        if transport is None:
            raise EOFError("the connection is closed")
        ended = self._channels.run(transport, command, stdin)
        # Without a status the command was killed by a signal, or the connection is gone.
        if ended.exit_code == KILLED and _is_lost(transport):
            raise EOFError("the connection closed before the command's exit code came")
        return ended

    def reconnect(self) -> None:
        """Open the connection anew, with the same pinned host keys, if the machine still runs."""
        with self._reconnect_lock:
            if self._closed:
                raise BakeError(f"the session with {self.login.address} is over")
            transport = self._client.get_transport()
            if transport is not None and transport.is_active():
                return  # another thread was quicker
            self._watch()
            self._client.close()
            opening = Opening(self.login, REBOOT_SECONDS, watch=self._watch, known=True)
            self._client, _ = opening.open()


def _is_lost(transport: paramiko.Transport) -> bool:
    """Whether the connection is gone; a dying one closes its channels a moment before it says so."""
    transport.join(DYING_SECONDS)
    return not transport.is_active()


def _no_shell(login: Login, ended: Ended) -> NoShell:
    """Name what came instead; it may be anything, so only its last lines."""
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
    """Connect as soon as the machine answers, at most `timeout` seconds long.

    The host key must be one of those in `login`; any other ends the attempt at once, since a wrong key is
    somebody else's machine and waiting will not mend it. A machine that keeps refusing the user may let one
    of `other_users` in: the session's own `login` says who it was. `watch` raises BakeError once the machine
    does not run any more; it is asked now and then while there is no connection.
    """
    tally = tally or Tally()
    with tally.waiting():
        client, user = Opening(login, timeout, other_users, watch).open()
    return Session(client, replace(login, user=user), tally, watch)
