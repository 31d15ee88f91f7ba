"""Metadata tokens, their way back, and listings, without a machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import Client

from bake.localcloud.api.imds import MAX_TTL, TOKEN_HEADER, TTL_HEADER, Imds, Metadata, Tokens
from bake.localcloud.network.server import serve

TREE = {
    "meta-data": {
        "instance-id": "i-1",
        "placement": {"region": "eu-north-1"},
        "public-keys": {"0": {"=name": "mine", "openssh-key": "ssh-ed25519 AAAA\n"}},
    },
    "dynamic": {},
}
KNOWN = {
    "10.0.0.10": Metadata(TREE, b"\x00\xffdata", token_required=True),
    "10.0.0.11": Metadata(TREE, None, token_required=False),
    "10.0.0.12": Metadata(TREE, None, token_required=False, enabled=False),
}


class ImdsClient:
    """A machine that asks the metadata service."""

    def __init__(self, service: Imds, address: str) -> None:
        self.client = Client(service)
        self.address = {"REMOTE_ADDR": address}

    def get(self, path: str, token: str | None = None) -> tuple[int, bytes]:
        headers = {TOKEN_HEADER: token} if token else {}
        answer = self.client.get(path, headers=headers, environ_base=self.address)
        return answer.status_code, answer.data

    def token(self, **headers: str) -> tuple[int, str]:
        named = {TTL_HEADER: headers.pop("ttl", "60"), **headers}
        answer = self.client.put("/latest/api/token", headers=named, environ_base=self.address)
        return answer.status_code, answer.text


@pytest.fixture
def service() -> Imds:
    return Imds(KNOWN.get)


@pytest.fixture
def strict(service: Imds) -> ImdsClient:
    return ImdsClient(service, "10.0.0.10")


@pytest.fixture
def lax(service: Imds) -> ImdsClient:
    return ImdsClient(service, "10.0.0.11")


def test_a_token_is_demanded_and_works(strict: ImdsClient) -> None:
    assert strict.get("/latest/meta-data/instance-id")[0] == 401
    status, token = strict.token()
    assert status == 200
    assert strict.get("/latest/meta-data/instance-id", token) == (200, b"i-1")
    assert strict.get("/2021-03-23/meta-data/instance-id", token) == (200, b"i-1")
    assert strict.get("/latest/user-data", token) == (200, b"\x00\xffdata")


def test_a_token_is_optional_where_the_instance_says_so(lax: ImdsClient) -> None:
    assert lax.get("/latest/meta-data/instance-id") == (200, b"i-1")
    assert lax.get("/latest/meta-data/instance-id", "wrong")[0] == 401
    assert lax.get("/latest/user-data")[0] == 404


def test_a_token_belongs_to_one_instance(strict: ImdsClient, lax: ImdsClient) -> None:
    assert strict.get("/latest/meta-data/", lax.token()[1])[0] == 401


@pytest.mark.parametrize("ttl", ["0", str(MAX_TTL + 1), "x", "", "-1", "²"], ids=repr)
def test_a_wrong_time_to_live_is_refused(strict: ImdsClient, ttl: str) -> None:
    assert strict.token(ttl=ttl)[0] == 400


def test_a_proxy_gets_no_token(strict: ImdsClient) -> None:
    assert strict.token(**{"X-Forwarded-For": "1.2.3.4"})[0] == 403


def test_a_token_ends() -> None:
    now = [0.0]
    tokens = Tokens(clock=lambda: now[0])
    token = tokens.issue("a", 10)
    now[0] = 9.9
    assert tokens.valid("a", token)
    now[0] = 10.0
    assert not tokens.valid("a", token)


def test_strangers_and_switched_off_instances_get_nothing(service: Imds) -> None:
    assert ImdsClient(service, "10.0.0.99").get("/latest/meta-data/instance-id")[0] == 404
    assert ImdsClient(service, "10.0.0.12").get("/latest/meta-data/instance-id")[0] == 403


@pytest.mark.parametrize(
    ("path", "listing"),
    [
        pytest.param("/latest/meta-data/", b"instance-id\nplacement/\npublic-keys/", id="folders"),
        pytest.param("/latest/meta-data/public-keys/", b"0=mine", id="keys"),
        pytest.param("/latest/meta-data/public-keys/0/", b"openssh-key", id="key"),
        pytest.param("/latest/", b"meta-data/\ndynamic/", id="top"),
        pytest.param("/latest", b"meta-data/\ndynamic/", id="top-without-slash"),
        pytest.param("/latest/meta-data/placement", b"region", id="folder-without-slash"),
        pytest.param("/1.0/meta-data/placement/", b"region", id="first-version"),
    ],
)
def test_listings(lax: ImdsClient, path: str, listing: bytes) -> None:
    assert lax.get(path) == (200, listing)


@pytest.mark.parametrize(
    "path",
    [
        *("/latest/meta-data/no", "/x", "/latest/meta-data/instance-id/x"),
        *("/1999-01-01/", "/1999-01-01/meta-data/", "/1999-1-1/meta-data/", "/2030-01-01/meta-data/"),
        "/latest/meta-data/instance-id/",
    ],
)
def test_unknown_paths(lax: ImdsClient, path: str) -> None:
    assert lax.get(path)[0] == 404


def test_user_data_is_a_leaf(strict: ImdsClient) -> None:
    token = strict.token()[1]
    assert strict.get("/latest/user-data", token)[0] == 200
    assert strict.get("/latest/user-data/", token)[0] == 404


def test_each_listed_version_is_there_and_no_other(lax: ImdsClient) -> None:
    listed = lax.get("/")[1].decode().splitlines()
    assert listed[:2] == ["1.0", "2007-01-19"] and listed[-1] == "latest"
    assert all(lax.get(f"/{version}/meta-data/instance-id") == (200, b"i-1") for version in listed)


IP_MINTTL = 21  # Linux's number; Python's socket module has no name for it
PATIENCE = 60.0


@pytest.fixture(params=[1, 2], ids=["one-hop", "two-hops"])
def hops(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def port(hops: int) -> Iterator[int]:
    """A served metadata service; its only instance is this host, with that hop limit."""
    service = Imds(lambda address: Metadata(TREE, None, token_required=True, hop_limit=hops))
    server = serve("127.0.0.1", 0, service, "instance metadata")
    yield server.server_port
    server.shutdown()


def connection(port: int, least: int = 1) -> socket.socket:
    """What arrives with fewer hops left than `least` is lost: 2 is a container on the machine."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.setsockopt(socket.IPPROTO_IP, IP_MINTTL, least)
    return client


def said(client: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def lost() -> int:
    """How many packets the kernel has dropped because they had come too far."""
    lines = Path("/proc/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index("TCPMinTTLDrop")])


GET = b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PUT = f"PUT /latest/api/token HTTP/1.1\r\nHost: 127.0.0.1\r\n{TTL_HEADER}: 60\r\n\r\n".encode()


def test_a_token_reaches_a_container_with_two_hops_only(port: int, hops: int) -> None:
    with connection(port, least=2) as container:
        before, deadline = lost(), time.monotonic() + PATIENCE
        container.sendall(PUT + GET)  # the second request shall not bring the answer to the first along
        if hops == 2:
            assert said(container).startswith(b"HTTP/1.1 200 ")
            return
        while lost() < before + 3:  # it is sent again and again, with no more hops than at first
            assert time.monotonic() < deadline
            time.sleep(0.01)
        container.setblocking(False)
        with pytest.raises(BlockingIOError):
            container.recv(1)


def test_other_answers_reach_a_container(port: int) -> None:
    with connection(port, least=64) as container:
        container.sendall(GET)
        assert said(container).startswith(b"HTTP/1.1 401 ")


def test_the_machine_itself_has_its_token(port: int) -> None:
    with connection(port) as machine:
        machine.sendall(PUT)
        assert said(machine).startswith(b"HTTP/1.1 200 ")
