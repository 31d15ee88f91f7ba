"""How to log in to a machine, and the host keys pinned for it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import paramiko

from bake.errors import BakeError

SSH_PORT = 22
_KINDS: tuple[type[paramiko.PKey], ...] = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True)
class Login:
    """How to log in to a machine. Keys are in OpenSSH's format, one or several concatenated.

    `private_key` logs in. The machine must show one of `host_key`: a line such as `ssh-ed25519 AAAA…` for
    each kind of key that was made for it. `proxy` is a command through which it is reached, with everything
    filled in; empty where it is reached directly.
    """

    address: str
    user: str
    private_key: str
    host_key: str
    port: int = SSH_PORT
    proxy: tuple[str, ...] = ()

    def __repr__(self) -> str:  # the private key must never reach a log
        return f"Login({self.user}@{self.address}:{self.port})"

    @property
    def private_keys(self) -> list[paramiko.PKey]:
        """The private keys, in the order in which they are offered."""
        end = "-----END OPENSSH PRIVATE KEY-----\n"
        texts = [f"{part}{end}" for part in self.private_key.split(end) if part.strip()]
        return [_private(text) for text in texts]

    @property
    def host_keys(self) -> list[paramiko.PKey]:
        """The pinned host keys; raises BakeError for a line that is not a key."""
        keys = [_public(line) for line in self.host_key.splitlines() or [""]]
        return list(keys)


def named(key: paramiko.PKey) -> str:
    """Return a key's type and fingerprint, as `ssh-keygen -l` and `ssh -v` show them."""
    return f"{key.get_name()} {key.fingerprint}"


def _private(text: str) -> paramiko.PKey:
    for kind in _KINDS:
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.SSHException:
            continue
    raise BakeError("the private key of the login is not one that OpenSSH made")


def _public(line: str) -> paramiko.PKey:
    try:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(f"pinned {line}")
    except (paramiko.SSHException, paramiko.hostkeys.InvalidHostKey):
        entry = None
    if entry is None or entry.key is None:
        raise BakeError("the pinned host key is not a valid OpenSSH public key")
    return entry.key
