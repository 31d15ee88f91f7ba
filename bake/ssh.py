"""One SSH connection to a machine, with its host key pinned.

Remote commands are argument lists, quoted here and nowhere else. Secrets go in by `stdin`.
"""

from __future__ import annotations

import io
import shlex
import socket
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType

import paramiko

from bake.errors import BakeError, ConnectionLost, RemoteCommandError
from bake.progress import Tally

TAIL_LINES = 25
REBOOT_SECONDS = 300  # a machine that restarts checks its disks first
PATIENT_REFUSALS = 20  # of the key; sshd is slow to refuse: about half a minute
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


@dataclass(frozen=True)
class Login:
    """How to reach a machine. Keys are OpenSSH texts; `host_key` is `ssh-ed25519 AAAA…`."""

    address: str
    user: str
    private_key: str
    host_key: str
    port: int = 22

    def __repr__(self) -> str:  # the private key must never reach a log
        return f"Login({self.user}@{self.address}:{self.port})"


class Session:
    """Runs commands on one machine over one connection; safe to use from several threads."""

    def __init__(self, client: paramiko.SSHClient, login: Login, tally: Tally) -> None:
        self._client = client
        self._reconnect_lock = threading.Lock()
        self._closed = False
        self.login = login
        self.tally = tally

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._client.close()

    def run(
        self, *argv: str, stdin: bytes | None = None, sudo: bool = False, check: bool = True
    ) -> CommandResult:
        """Run one command and wait for it.

        `sudo` runs it as root without a password prompt. With `check`, a non-zero exit raises
        RemoteCommandError. `stdin` is the way for secrets: it reaches no log and no argument list.
        """
        full = ("sudo", "-n", *argv) if sudo else argv
        result = self.run_shell(shlex.join(full), stdin=stdin, argv=full)
        return result.check() if check else result

    def run_shell(
        self, command: str, *, stdin: bytes | None = None, argv: tuple[str, ...] | None = None
    ) -> CommandResult:
        """Run a shell command line as it is; only testinfra needs this, which quotes by itself."""
        started = time.monotonic()
        self.tally.ssh_commands += 1
        try:
            transport = self._client.get_transport()
            if transport is None:
                raise EOFError("the connection is closed")
            channel = transport.open_session()
            channel.exec_command(command)
            with self.tally.waiting():
                stdout, stderr = _exchange(channel, stdin)
                exit_code = channel.recv_exit_status()
            # Without a status the command was killed by a signal, or the connection is gone.
            if exit_code == KILLED and _is_lost(transport):
                raise EOFError("the connection closed before the command's exit code came")
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLost(
                f"the SSH connection to {self.login.address} broke while running: {command}\n  {error}",
                hint="the machine may have stopped; its console output is in the run directory",
            ) from error
        return CommandResult(
            argv or (command,),
            exit_code,
            stdout.decode("utf-8", "replace"),
            stderr.decode("utf-8", "replace"),
            time.monotonic() - started,
        )

    def reconnect(self) -> None:
        """Open the connection anew, with the same pinned host key."""
        with self._reconnect_lock:
            if self._closed:
                raise BakeError(f"the session with {self.login.address} is over")
            transport = self._client.get_transport()
            if transport is not None and transport.is_active():
                return  # another thread was quicker
            self._client.close()
            self._client, _ = _connect(self.login, REBOOT_SECONDS)


def _is_lost(transport: paramiko.Transport) -> bool:
    """Whether the connection is gone; a dying one closes its channels a moment before it says so."""
    transport.join(DYING_SECONDS)
    return not transport.is_active()


def _exchange(channel: paramiko.Channel, stdin: bytes | None) -> tuple[bytes, bytes]:
    """Send stdin and drain both streams at once, so that neither side can block the other."""
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
            pass  # the command ended without reading its input: its exit code tells the story

    threads = [threading.Thread(target=work, daemon=True) for work in (drain_stderr, feed)]
    for thread in threads:
        thread.start()
    stdout = bytearray()
    while chunk := channel.recv(65536):
        stdout.extend(chunk)
    for thread in threads:
        thread.join()
    return bytes(stdout), bytes(stderr)


def connect(
    login: Login, tally: Tally | None = None, *, timeout: float = 300, other_users: tuple[str, ...] = ()
) -> Session:
    """Connect as soon as the machine answers, at most `timeout` seconds long.

    The host key must be the one in `login`; any other ends the attempt at once, since a wrong key is
    somebody else's machine and waiting will not mend it. A machine that keeps refusing the user may let one
    of `other_users` in: the session's own `login` says who it was.
    """
    tally = tally or Tally()
    with tally.waiting():
        client, user = _connect(login, timeout, other_users)
    return Session(client, replace(login, user=user), tally)


def _connect(
    login: Login, timeout: float, other_users: tuple[str, ...] = ()
) -> tuple[paramiko.SSHClient, str]:
    started = time.monotonic()
    refused = 0
    while True:
        # A machine may answer before it has the key, so the others are asked only after a while.
        users = (login.user, *other_users) if refused >= PATIENT_REFUSALS else (login.user,)
        user = users[refused % len(users)]
        try:
            return _connect_once(replace(login, user=user)), user
        except paramiko.BadHostKeyException as error:
            raise BakeError(
                f"{login.address} answers with another SSH host key than the one made for this run:\n"
                f"  expected: {_named(error.expected_key)}\n  found:    {_named(error.key)}",
                hint="someone may be between you and the machine; nothing was sent to it",
            ) from error
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise BakeError(
                f"{login.address} speaks SSH in a way that `bake` does not: {error}\n"
                f"  expected: {_named(_host_key(login))}",
                hint="does the base AMI allow ed25519 keys in its sshd_config, and no old algorithms alone?",
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            refused += isinstance(error, paramiko.AuthenticationException)
            if time.monotonic() > started + timeout:
                raise BakeError(
                    f"no SSH connection to {login.user}@{login.address}:{login.port} within {timeout:.0f} s: "
                    f"{error or type(error).__name__}",
                    hint="is port 22 open from here in the security group, and is the address reachable?",
                ) from error
            time.sleep(0.3)


def _named(key: paramiko.PKey) -> str:
    """A key's type and fingerprint, as `ssh-keygen -l` and `ssh -v` show it."""
    return f"{key.get_name()} {key.fingerprint}"


def _host_key(login: Login) -> paramiko.PKey:
    try:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{login.address} {login.host_key}")
    except (paramiko.SSHException, paramiko.hostkeys.InvalidHostKey):
        entry = None
    if entry is None or entry.key is None:
        raise BakeError("the pinned host key is not a valid OpenSSH public key")
    return entry.key


def _connect_once(login: Login) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    host = login.address if login.port == 22 else f"[{login.address}]:{login.port}"
    key = _host_key(login)
    client.get_host_keys().add(host, key.get_name(), key)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        client.connect(
            login.address,
            port=login.port,
            username=login.user,
            pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(login.private_key)),
            timeout=5,
            banner_timeout=10,
            auth_timeout=10,
            allow_agent=False,
            look_for_keys=False,
        )
    except BaseException:
        client.close()
        raise
    transport = client.get_transport()
    if transport is not None:
        transport.set_keepalive(15)
        sock = transport.sock
        if isinstance(sock, socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client
