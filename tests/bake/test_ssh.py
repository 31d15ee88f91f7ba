"""A host key other than the pinned one ends the attempt at once; the error shows both fingerprints."""

from __future__ import annotations

import dataclasses
import io
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from bake import ssh
from bake.errors import BakeError, Interrupted
from bake.instance import KeyPair
from bake.ssh import Login, Session, opening
from bake.steps.connect import gone
from bake.steps.launch import Instance
from bake.systems import SYSTEMS

from .ssh_server import Server, host_key

pytestmark = pytest.mark.integration
TIMEOUT = 600.0  # seconds that an attempt may take in all: a test that used them up would be noticed


def openssh(tmp_path: Path, public: str) -> str:
    """The fingerprint by OpenSSH's own reckoning."""
    file = tmp_path / "key.pub"
    file.write_text(f"{public}\n")
    return subprocess.run(
        ["ssh-keygen", "-l", "-E", "sha256", "-f", file], check=True, capture_output=True, text=True
    ).stdout.split()[1]


@pytest.fixture(scope="module")
def pinned() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture
def server(pinned: KeyPair) -> Iterator[Server]:
    server = Server(host_key(pinned))
    yield server
    server.close()


@pytest.fixture
def login(server: Server, pinned: KeyPair) -> Login:
    return Login("127.0.0.1", "ubuntu", KeyPair.generate().private, pinned.public, server.port)


def refused(login: Login) -> str:
    with pytest.raises(BakeError, match="another SSH host key") as caught:
        ssh.connect(login, timeout=TIMEOUT)
    assert "nothing was sent" in str(caught.value.hint)
    return caught.value.message


def test_the_pinned_key_is_let_through(login: Login) -> None:
    with ssh.connect(login, timeout=TIMEOUT) as session:
        assert session.login == login


def test_an_interrupt_while_a_channel_is_opened_ends_as_one(login: Login) -> None:
    """Between taking a number for a channel and telling it its transport, paramiko can't close."""
    with pytest.raises(Interrupted), ssh.connect(login, timeout=TIMEOUT) as session:
        transport = session._client.get_transport()
        assert transport is not None
        half_open = paramiko.Channel(7)
        transport._channels.put(7, half_open)
        raise Interrupted("SIGTERM")
    assert not transport.is_active() and transport.sock.fileno() == -1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: host_key(KeyPair.generate()), id="ed25519"),
        pytest.param(lambda: paramiko.RSAKey.generate(2048), id="rsa-alone"),
        pytest.param(lambda: paramiko.ECDSAKey.generate(), id="ecdsa-alone"),
    ],
)
def test_both_keys_are_named_by_their_fingerprints(
    server: Server, login: Login, pinned: KeyPair, tmp_path: Path, other: object
) -> None:
    server.key = other()  # type: ignore[operator]
    message = refused(login)
    public = f"{server.key.get_name()} {server.key.get_base64()}"
    assert f"expected: ssh-ed25519 {openssh(tmp_path, pinned.public)}" in message
    assert f"found:    {server.key.get_name()} {openssh(tmp_path, public)}" in message
    assert server.logins == 1, "asked once"


def test_an_unknown_kind_of_key_ends_the_attempt(
    server: Server, login: Login, pinned: KeyPair, tmp_path: Path
) -> None:
    server.only = "ssh-dss"
    with pytest.raises(BakeError, match="no acceptable host key") as caught:
        ssh.connect(login, timeout=TIMEOUT)
    assert f"expected: ssh-ed25519 {openssh(tmp_path, pinned.public)}" in caught.value.message
    assert "ed25519" in str(caught.value.hint)
    assert server.logins == 1, "asked once"


def test_a_key_that_changes_is_noticed_when_the_connection_is_opened_anew(
    server: Server, login: Login, pinned: KeyPair, tmp_path: Path
) -> None:
    with ssh.connect(login, timeout=TIMEOUT) as session:
        server.key = paramiko.RSAKey.generate(2048)
        server.drop()
        wait_for_end(session)
        with pytest.raises(BakeError, match="another SSH host key") as caught:
            session.reconnect()
    for key in (host_key(pinned), server.key):
        assert f"{key.get_name()} {openssh(tmp_path, f'{key.get_name()} {key.get_base64()}')}" in str(
            caught.value
        )
    assert server.logins == 2


def wait_for_end(session: Session) -> None:
    """Until this side knows that the connection is gone."""
    transport = session._client.get_transport()
    assert transport is not None
    transport.join(TIMEOUT)
    assert not transport.is_active()


@pytest.mark.parametrize("wrong", ["ssh-ed25519 AAAA", "ssh-ed25519 A", "ssh-ed25519", "ssh-x AAAA", ""])
def test_an_invalid_pinned_key_is_reported(login: Login, wrong: str) -> None:
    with pytest.raises(BakeError, match="not a valid OpenSSH public key"):
        ssh.connect(dataclasses.replace(login, host_key=wrong), timeout=TIMEOUT)


@pytest.fixture
def breaking() -> Iterator[tuple[int, list[int]]]:
    """A port that takes connections and ends each without a word, as sshd without a host key does."""
    taken: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.close()
                taken.append(1)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1], taken
        listening.shutdown(socket.SHUT_RDWR)


def test_a_handshake_that_always_breaks_is_given_up(
    login: Login,
    breaking: tuple[int, list[int]],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "PATIENT_BREAKS", 2.0)
    port, taken = breaking
    with pytest.raises(BakeError, match="takes connections and ends each") as caught:
        ssh.connect(dataclasses.replace(login, port=port), timeout=TIMEOUT)
    assert "HostKeyAlgorithms" in str(caught.value.hint)
    assert len(taken) > 2, "one that breaks is tried again"
    assert capfd.readouterr().err == "", "no traceback of the library"


def test_the_one_who_watches_is_asked_before_the_port_is_blamed(login: Login) -> None:
    def gone() -> None:
        raise BakeError("it was terminated")

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with pytest.raises(BakeError, match="it was terminated"):
        ssh.connect(dataclasses.replace(login, port=port), timeout=TIMEOUT, watch=gone)


def test_either_pinned_key_and_either_login_will_do(server: Server, pinned: KeyPair) -> None:
    other, mine = KeyPair.generate("ecdsa"), KeyPair.of_each_kind()
    login = Login(
        "127.0.0.1",
        "ubuntu",
        "".join(key.private for key in mine),
        f"{pinned.public}\n{other.public}",
        server.port,
    )
    for key in (host_key(pinned), paramiko.ECDSAKey.from_private_key(io.StringIO(other.private))):
        server.key = key
        server.accepted = "ecdsa-sha2-nistp256"
        ssh.connect(login, timeout=TIMEOUT).close()
    assert server.logins >= 4, "each refused the first kind"


@pytest.mark.parametrize(
    ("state", "code", "message", "told"),
    [
        (
            "terminated",
            "Server.SpotInstanceTermination",
            "Server.SpotInstanceTermination: no capacity",
            "interrupted by spot and terminated (Server.SpotInstanceTermination: no capacity)",
        ),
        ("stopping", "Client.UserInitiatedShutdown", "", "was stopped (Client.UserInitiatedShutdown)"),
        ("shutting-down", "", "", "was terminated (EC2 gives no reason)"),
        (
            "stopped",
            "Server.InternalError",
            "hardware",
            "was stopped (Server.InternalError: hardware)",
        ),
    ],
    ids=["spot", "user", "no-reason", "hardware"],
)
def test_the_end_of_a_machine_is_reported_in_ec2s_words(
    login: Login, state: str, code: str, message: str, told: str
) -> None:
    error = gone(Instance("i-1", "vol-1", login, SYSTEMS["ubuntu"]), state, code, message)
    assert told in error.message
    assert error.message.startswith("the builder i-1 was ")
    assert ("on demand" in str(error.hint)) == (told.startswith("interrupted"))
