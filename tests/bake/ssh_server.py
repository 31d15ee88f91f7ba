"""A machine that takes SSH connections on loopback, and runs commands as whoever tests."""

from __future__ import annotations

import io
import socket
import subprocess
import threading
from contextlib import suppress

import paramiko

from bake.instance import KeyPair


class Lets(paramiko.ServerInterface):
    """Lets everybody in who has a key, of the one kind that is accepted, or whichever."""

    def __init__(self, accepted: str | None = None) -> None:
        self.accepted = accepted

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.common.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=ran, args=(channel, command.decode()), daemon=True).start()
        return True

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self.accepted not in (None, key.get_name()):
            return int(paramiko.common.AUTH_FAILED)
        return int(paramiko.common.AUTH_SUCCESSFUL)


def ran(channel: paramiko.Channel, command: str) -> None:
    """Run a command, which reads nothing, and send what sshd would."""
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        channel.sendall(done.stdout)
        channel.sendall_stderr(done.stderr)
        channel.send_exit_status(done.returncode)
    except OSError:
        pass  # it was cut meanwhile
    channel.close()


class Server:
    """A machine that takes SSH connections on loopback; `key` is its host key, and may change."""

    def __init__(self, key: paramiko.PKey) -> None:
        self.key = key
        self.only: str | None = None
        """The name of the one kind of host keys that it offers; its key's own unless set."""
        self.accepted: str | None = None
        """The name of the one kind of keys that lets in; any unless set."""
        self.logins = 0
        self._transports: list[paramiko.Transport] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            self.logins += 1
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.key)
            if self.only:
                transport.server_key_dict[self.only] = self.key  # type: ignore[attr-defined]
                transport._preferred_keys = (self.only,)
            self._transports.append(transport)
            transport.start_server(threading.Event(), Lets(self.accepted))

    def drop(self) -> None:
        """End all connections."""
        for transport in self._transports:
            transport.close()

    def close(self) -> None:
        with suppress(OSError):  # closed before
            self._socket.shutdown(socket.SHUT_RDWR)  # or the thread that waits takes one more
        self._socket.close()
        self.drop()


def host_key(pair: KeyPair) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(pair.private))
