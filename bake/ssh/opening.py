"""Open a connection: wait for a machine that boots, but fail at once when waiting can't help."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import paramiko

from bake.errors import BakeError
from bake.ssh.login import Login, named
from bake.ssh.proxy import NoWay, Proxy, by_hand
from bake.waits import Wait

# Refusals of the key that are tolerated. sshd is slow to refuse, so this takes about half a minute.
PATIENT_REFUSALS = 20
# Seconds of broken handshakes that are tolerated: some break while a machine boots, all if sshd has no key.
PATIENT_BREAKS = 40.0
LOOK_SECONDS = 5  # between two checks whether the machine still runs
# Seconds until a machine has said its name: a command may first ask AWS for a way to it.
NAMED, NAMED_THROUGH_PROXY = 10, 40
# Seconds between two attempts; each one through a command may cost a request to AWS.
PAUSE, PAUSE_WITH_PROXY = 0.3, 2.0
# Seconds of silence before a probe, and between two probes; a machine that answers neither is lost.
SILENT = 4

# paramiko logs a traceback for a broken connection; the error that is raised says it in words.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

Watch = Callable[[], None]
"""Raises BakeError if the machine no longer runs."""


def nobody_watches() -> None:
    """Watch nothing: nobody can tell whether this machine runs."""


@dataclass
class Opening:
    """Attempts to connect for `timeout` seconds, and counts the failures on the way.

    If the machine keeps refusing the user, `other_users` are tried. A `known` machine has accepted this login
    before: no other users are tried, and fewer refusals are tolerated.
    """

    login: Login
    timeout: float
    other_users: tuple[str, ...] = ()
    watch: Watch = nobody_watches
    known: bool = False
    refused: int = 0
    _started: float = field(default_factory=time.monotonic)
    _looked: float = field(default_factory=time.monotonic)
    _breaking: float | None = None

    def open(self, wait: Wait) -> tuple[paramiko.SSHClient, str]:
        """Return the connection and the user that logged in."""
        keys, hosts = self.login.private_keys, self.login.host_keys
        while True:
            user, key = self._next(keys)
            try:
                return _connect(replace(self.login, user=user), key, hosts), user
            except paramiko.BadHostKeyException as error:
                raise _other_key(self.login, hosts, error) from error
            except paramiko.ssh_exception.IncompatiblePeer as error:
                raise _incompatible(self.login, hosts, error) from error
            except (paramiko.SSHException, OSError, EOFError) as error:
                if why := _never(error):
                    raise _closed_to_keys(self.login, why) from error
                self._met(error)
                wait.detail = str(error) or type(error).__name__
                wait.pause(PAUSE_WITH_PROXY if self.login.proxy else PAUSE)

    def _next(self, keys: list[paramiko.PKey]) -> tuple[str, paramiko.PKey]:
        """Return the next user and key: a machine that refuses one kind of key may accept another."""
        # A machine may answer before it has the key, so other users are tried only later.
        patient = self.refused < PATIENT_REFUSALS
        users = (self.login.user,) if patient else (self.login.user, *self.other_users)
        turn = self.refused
        return users[turn // len(keys) % len(users)], keys[turn % len(keys)]

    def _met(self, error: Exception) -> None:
        """Count a failure; raise if the time is over or waiting can't help."""
        self.refused += isinstance(error, paramiko.AuthenticationException)
        now = time.monotonic()
        self._breaking = (self._breaking or now) if _is_break(error) else None
        if now > self._looked + LOOK_SECONDS:
            self._looked = now
            self.watch()
        if self.known and self.refused >= PATIENT_REFUSALS:
            raise BakeError(
                f"{self.login.address} does not let {self.login.user} in any more: {error}",
                hint="did something remove the key from authorized_keys, or close the account?",
            ) from error
        if self._breaking is not None and now > self._breaking + PATIENT_BREAKS:
            raise _no_handshake(self.login, error) from error
        if now > self._started + self.timeout:
            self.watch()
            raise _no_connection(self.login, self.timeout, error, self.refused) from error


def _never(error: Exception) -> str:
    """Return what the machine wants instead of or beside a key; empty if it only refused this key."""
    if isinstance(error, paramiko.BadAuthenticationType):
        return f"it wants {' and '.join(error.allowed_types) or 'something that it does not name'}"
    if "No authentication methods available" in str(error):  # paramiko's words for a first factor of two
        return "it wants another factor beside it, such as a password"
    return ""


def _is_break(error: Exception) -> bool:
    """Whether the machine accepted the connection and closed it before the key exchange."""
    if isinstance(error, paramiko.AuthenticationException | TimeoutError | ConnectionRefusedError):
        return False
    return isinstance(error, ConnectionResetError | EOFError | paramiko.SSHException)


def _connect(login: Login, key: paramiko.PKey, hosts: list[paramiko.PKey]) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    name = login.address if login.port == 22 else f"[{login.address}]:{login.port}"
    for host in hosts:
        client.get_host_keys().add(name, host.get_name(), host)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    proxy = Proxy(login.proxy) if login.proxy else None
    try:
        client.connect(
            login.address,
            port=login.port,
            username=login.user,
            pkey=key,
            timeout=5,
            banner_timeout=NAMED_THROUGH_PROXY if proxy else NAMED,
            auth_timeout=10,
            allow_agent=False,
            look_for_keys=False,
            sock=proxy,  # type: ignore[arg-type]  # it has what is used of a socket
        )
    except BaseException as error:
        client.close()
        if proxy is not None:
            proxy.close()
            _blame(proxy, error)
        raise
    transport = client.get_transport()
    if transport is not None:
        _notice_loss(transport)
    return client


def end(transport: paramiko.Transport) -> None:
    """Close a connection, and wait until the command through which it goes, if any, has ended."""
    try:
        transport.close()
    except AttributeError:
        # An interrupt while a channel was opened leaves one that does not know its transport yet, and
        # paramiko fails to take it off. It must not hide the interrupt; the socket alone is still open.
        transport.sock.close()
    if isinstance(transport.sock, Proxy):
        transport.sock.close()


def _blame(proxy: Proxy, error: BaseException) -> None:
    """Raise NoWay where nothing came through the command: then it is not the machine that failed."""
    if proxy.heard == 0 and isinstance(error, paramiko.SSHException | OSError | EOFError):
        raise NoWay(proxy.told) from error


def _notice_loss(transport: paramiko.Transport) -> None:
    transport.set_keepalive(SILENT)
    if isinstance(transport.sock, socket.socket):
        _notice_silence(transport.sock)
    elif isinstance(transport.sock, Proxy):
        transport.sock.watch(transport)


def _notice_silence(sock: socket.socket) -> None:
    """Let the kernel end a connection whose other side has silently gone (tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": SILENT, "TCP_KEEPINTVL": SILENT, "TCP_KEEPCNT": 2}
    # Milliseconds for unacknowledged data; by default the kernel tries for a quarter of an hour.
    options["TCP_USER_TIMEOUT"] = 3 * SILENT * 1000
    for name, value in options.items():
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _pinned(hosts: list[paramiko.PKey]) -> str:
    return " or ".join(named(host) for host in hosts)


def _other_key(login: Login, hosts: list[paramiko.PKey], error: paramiko.BadHostKeyException) -> BakeError:
    return BakeError(
        f"{login.address} answers with another SSH host key than those made for this run:\n"
        f"  expected: {_pinned(hosts)}\n  found:    {named(error.key)}",
        hint="someone may be between you and the machine; nothing was sent to it. Or its sshd_config allows "
        "none of these kinds of host keys",
    )


def _incompatible(
    login: Login, hosts: list[paramiko.PKey], error: paramiko.ssh_exception.IncompatiblePeer
) -> BakeError:
    return BakeError(
        f"{login.address} speaks SSH in a way that `bake` does not: {error}\n  expected: {_pinned(hosts)}",
        hint="does the base AMI allow ed25519 or ECDSA keys in its sshd_config (HostKeyAlgorithms), "
        "and no old algorithms alone?",
    )


def _closed_to_keys(login: Login, why: str) -> BakeError:
    return BakeError(
        f"{login.address} does not let {login.user} in by a key alone: {why}",
        hint="the base AMI's sshd_config (AuthenticationMethods, PubkeyAuthentication) must take a key alone",
    )


def _no_handshake(login: Login, error: Exception) -> BakeError:
    return BakeError(
        f"{login.address}:{login.port} takes connections and ends each before it shows a host key: "
        f"{error or type(error).__name__}",
        hint="sshd has no host key that its sshd_config allows (HostKeyAlgorithms, FIPS), or refuses this "
        "address; its console output, in the run directory, may say which",
    )


def _no_connection(login: Login, timeout: float, error: Exception, refused: int) -> BakeError:
    hint = "is port 22 open from here in the security group, and is the address reachable?"
    if login.proxy:
        hint = f"builder.proxy_command must lead there; by hand: {by_hand(login.proxy)}"
    if refused:
        hint = f"it answers, and refuses {login.user}: is that the base AMI's user, and does it take keys?"
    return BakeError(
        f"no SSH connection to {login.user}@{login.address}:{login.port} within {timeout:.0f} s: "
        f"{error or type(error).__name__}",
        hint=hint,
    )
