"""Which hosts outside machines reach once hosts were declared, and how names lead to addresses."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from bake.errors import BakeError
from bake.localcloud.cli import local
from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.lifecycle.render import render
from bake.localcloud.lifecycle.state import RefusedStatus, Status
from bake.localcloud.network import bridge, firewall, names
from bake.localcloud.network.egress import Egress, host_of, named
from bake.localcloud.settings import DNS_PORT, Settings
from bake.ssh import connect
from tests.outside import outside as world

from .plugged import CONNECT, SECONDS, connected, inside, plugged_in

if TYPE_CHECKING:
    from tests.outside import Outside

SETTINGS = Settings.load({"BAKE_LOCAL_STATE": "/nowhere", "BAKE_LOCAL_NETWORK": "10.214.40.0/24"})


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question(name: str) -> bytes:
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + encoded(name) + struct.pack("!2H", 1, 1)


def answer(asked: bytes, *addresses: str) -> bytes:
    """The answer to a question: an alias of the name first, then addresses, whose name is compressed."""
    alias = b"\xc0\x0c" + struct.pack("!2HIH", 5, 1, 60, 2) + b"\xc0\x0c"
    records = [
        b"\xc0\x0c" + struct.pack("!2HIH", 1, 1, 60, 4) + socket.inet_aton(address) for address in addresses
    ]
    head = asked[:2] + struct.pack("!5H", 0x8180, 1, 1 + len(records), 0, 0)
    return head + asked[12:] + alias + b"".join(records)


def test_an_answer_tells_a_name_and_its_addresses() -> None:
    message = answer(question("Files.Example.org"), "192.0.2.7", "192.0.2.8")
    assert names.parse(message) == ("files.example.org", ["192.0.2.7", "192.0.2.8"])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 12,
        question("a.b")[:-6],
        struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        answer(question("a.b"), "192.0.2.7")[:-9],
    ],
    ids=["empty", "no-question", "cut-name", "endless-name", "cut-record"],
)
def test_what_is_no_answer_is_told_apart(message: bytes) -> None:
    with pytest.raises((ValueError, IndexError, struct.error)):
        names.parse(message)


@pytest.fixture
def upstream() -> Iterator[str]:
    """A name server that knows one address for every name."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as streams,
    ):
        streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        streams.bind(("127.0.0.1", 0))
        port = streams.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        streams.listen()

        def over_udp() -> None:
            with suppress(OSError):  # the test may end without a question
                asked, place = datagrams.recvfrom(65535)
                datagrams.sendto(answer(asked, "192.0.2.9"), place)

        def over_tcp() -> None:
            with suppress(OSError):
                connection, _ = streams.accept()
                with connection:
                    asked = connection.recv(65535)[2:]
                    told = answer(asked, "192.0.2.9")
                    connection.sendall(struct.pack("!H", len(told)) + told)

        answering = [threading.Thread(target=work, daemon=True) for work in (over_udp, over_tcp)]
        for one in answering:
            one.start()
        yield f"127.0.0.1:{port}"
        # A socket that another thread waits on outlives its closing: it would take a later test's connection.
        for listening in (datagrams, streams):
            with suppress(OSError):  # datagrams have no connection, and wake up all the same
                listening.shutdown(socket.SHUT_RDWR)
        for one in answering:
            one.join(60)
            assert not one.is_alive()


def test_names_are_answered_over_both_protocols_after_they_were_heard(upstream: str) -> None:
    heard: list[tuple[str, list[str]]] = []
    end, port = served([upstream], lambda name, found: heard.append((name, found)))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.connect(("127.0.0.1", port))
            client.send(question("a.example"))
            assert names.parse(client.recv(65535)) == ("a.example", ["192.0.2.9"])
        assert heard == [("a.example", ["192.0.2.9"])]
        with socket.create_connection(("127.0.0.1", port), 60) as stream:
            asked = question("b.example")
            stream.sendall(struct.pack("!H", len(asked)) + asked)
            assert names.parse(stream.recv(65535)[2:]) == ("b.example", ["192.0.2.9"])
        assert heard[1:] == [("b.example", ["192.0.2.9"])]
    finally:
        end()


def served(upstream: list[str], heard: names.Heard) -> tuple[Callable[[], None], int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    return names.serve("127.0.0.1", port, upstream, heard), port


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://Example.org:8443/x?y", "example.org"),
        ("git@github.com:owner/repository.git", "github.com"),
        ("http://user:secret@192.0.2.7:81/", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("*.hf.co", "*.hf.co"),
        ("the base AMI's package sources", ""),
        ("", ""),
        ("https://[2001:db8::1]/", ""),
    ],
)
def test_hosts_are_read_from_what_plans_and_users_say(text: str, host: str) -> None:
    assert host_of(text) == host


@pytest.fixture
def egress() -> tuple[Egress, list[str]]:
    let_through: list[str] = []

    def declare(settings: Settings, addresses: Iterable[str]) -> None:
        let_through.extend(addresses)

    return Egress(SETTINGS, ["http://packages.example/debian"], declare), let_through


def test_addresses_of_declared_names_are_let_through_as_they_are_heard(
    egress: tuple[Egress, list[str]],
) -> None:
    found, let_through = egress
    found.declare(["*.hf.co", "192.0.2.7"], everybody=False)
    assert let_through == ["192.0.2.7"]
    found.heard("cdn.hf.co", ["192.0.2.8"])
    found.heard("hf.co.example", ["192.0.2.9"])
    found.heard("packages.example", ["192.0.2.10"])
    assert let_through == ["192.0.2.7", "192.0.2.8", "192.0.2.10"]
    assert found.declared == ["*.hf.co", "192.0.2.7"]


def test_machines_of_bakes_are_strict_once_a_bake_declared_its_hosts(
    egress: tuple[Egress, list[str]],
) -> None:
    found, _ = egress
    baked: Any = SimpleNamespace(get_tags=lambda: [{"key": "bake:run", "value": "x"}])
    by_hand: Any = SimpleNamespace(get_tags=list)
    assert not found.is_strict(baked) and found.declared is None
    found.declare([], everybody=False)
    assert found.is_strict(baked) and not found.is_strict(by_hand)
    found.declare([], everybody=True)
    assert found.is_strict(by_hand)


def test_refused_destinations_have_names(
    egress: tuple[Egress, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {("192.0.2.9", "tcp", 443): 3, ("192.0.2.10", "icmp", 0): 1}
    monkeypatch.setattr(firewall, "refused", lambda settings: counts)
    found, _ = egress
    found.heard("api.example", ["192.0.2.9"])
    refused = found.refused()
    assert named(refused) == ["192.0.2.10 (icmp)", "api.example:443"]
    status = Status(
        *("", "", "", 1, "2026-01-01T00:00:00"),
        seed=1,
        lenient=False,
        instances=(),
        images=(),
        refused=tuple(RefusedStatus(**one) for one in refused),
    )
    assert "api.example:443  tcp" in render(status)
    assert asdict(status)["refused"][1]["packets"] == 3


@pytest.mark.root
def test_the_counters_of_refused_packets_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    table = f"bake_test_{os.getpid()}"
    monkeypatch.setattr(Settings, "table", property(lambda self: table))
    rules = firewall.rules(SETTINGS, ["192.0.2.53"], [("192.0.2.1", 80)])
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        assert firewall.refused(SETTINGS) == {}
        element = ["nft", "add", "element", "ip", table, "refused", "{ 192.0.2.9 . tcp . 443 }"]
        subprocess.run(element, check=True)
        firewall.declare(SETTINGS, ["192.0.2.0/24", "192.0.2.7"])
        assert firewall.refused(SETTINGS) == {("192.0.2.9", "tcp", 443): 0}
    finally:
        firewall.down(SETTINGS)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Settings]:
    """The network of a cloud without the cloud."""
    settings = Settings(tmp_path, tmp_path, IPv4Network("10.214.97.0/24"))
    bridge.up(settings)
    yield settings
    bridge.down(settings)


@pytest.mark.root
def test_packets_of_a_strict_instance_are_refused_at_once_and_counted(bare: Settings, upstream: str) -> None:
    own = str(bare.subnet[20])
    leaving = frozenset({firewall.Opening("leaving", own, "-1", None, "0.0.0.0/0")})
    heard: list[str] = []
    end = names.serve(bare.address, DNS_PORT, [upstream], lambda name, found: heard.append(name))
    try:
        with world() as out, plugged_in(bare, own) as process, out.make(listener(out.address)) as server:
            place = out.address, server.getsockname()[1]
            assert connected(inside(process), *place) == "TimeoutError", "no group lets it out"
            firewall.allow(bare, firewall.Traffic(leaving, strict=frozenset({own})))
            assert connected(inside(process), *place) == "ConnectionRefusedError"
            assert firewall.refused(bare) == {(place[0], "tcp", place[1]): 1}
            firewall.declare(bare, [place[0]])
            assert connected(inside(process), *place) == "open"
            assert asked_for(process, "x.example") == ["192.0.2.9"] and heard == ["x.example"]
            firewall.allow(bare, firewall.Traffic(leaving, cut_off=frozenset({own})))
            assert connected(inside(process), *place) == "TimeoutError"
    finally:
        end()


ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(60)
    client.connect(("192.0.2.53", 53))
    client.send(bytes.fromhex(sys.argv[1]))
    print(client.recv(65535).hex())
"""


def asked_for(process: int, name: str) -> list[str]:
    """The addresses that an instance is told for a name, whatever server it asks."""
    command = [*inside(process), "/usr/bin/python3", "-c", ASK, question(name).hex()]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return names.parse(bytes.fromhex(told))[1]


@pytest.mark.root
def test_a_strict_machine_reaches_what_was_declared_and_nothing_else(
    account: Any, outside: Outside, cloud_settings: Settings
) -> None:
    """The fixture `outside` declares its address."""
    launched = account.launch()
    elsewhere = "203.0.113.77"
    try:
        with connect(launched.login) as session, outside.make(listener(outside.address)) as server:
            port = server.getsockname()[1]
            words = ("python3", "-c", CONNECT)
            assert session.run(*words, outside.address, str(port), str(SECONDS)).stdout.strip() == "open"
            refused = session.run(*words, elsewhere, "4711", str(SECONDS)).stdout.strip()
            assert refused == "ConnectionRefusedError", "at once"
        result = CliRunner().invoke(local, ["status", "--json"])
        found = [one for one in json.loads(result.stdout)["refused"] if one["host"] == elsewhere]
        assert [(one["port"], one["protocol"]) for one in found] == [(4711, "tcp")]
    finally:
        account.terminate(launched.id)


def listener(address: str) -> Callable[[], socket.socket]:
    return lambda: socket.create_server((address, 0))


def test_a_use_of_the_cloud_that_fails_names_what_was_refused(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([{"old:1"}, {"old:1", "api.example:443"}])
    monkeypatch.setattr(localcloud, "_refused", lambda settings: next(told))
    monkeypatch.setattr(localcloud, "up", lambda **named: None)
    monkeypatch.setattr(localcloud, "_health", lambda settings: None)
    with pytest.raises(BakeError) as failed, localcloud.running():
        raise BakeError("pip failed")
    [note] = failed.value.__notes__
    assert "api.example:443" in note and "old:1" not in note
