"""A server answers by its own names alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from werkzeug.wrappers import Response

from bake.localcloud.network.server import serve


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = serve("127.0.0.1", 0, Response("here"), "a test", also=["169.254.169.254", "Name:80"])
    yield server.server_port
    server.shutdown()


def ask(port: int, *lines: str) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).format(port=port).encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    "lines",
    [
        ("GET / HTTP/1.1", "Host: 127.0.0.1:{port}"),
        ("GET / HTTP/1.1", "Host: 127.0.0.1"),
        ("GET / HTTP/1.1", "Host: localhost:{port}"),
        ("GET / HTTP/1.1", "Host: 169.254.169.254"),
        ("GET / HTTP/1.1", "host: NAME:80"),
        ("GET / HTTP/1.0", "Host: 127.0.0.1"),
        ("GET http://127.0.0.1:{port}/ HTTP/1.1", "Host: 127.0.0.1:{port}"),
    ],
    ids=lambda lines: " ".join(lines),
)
def test_own_names(port: int, lines: tuple[str, ...]) -> None:
    assert ask(port, *lines) == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("GET / HTTP/1.1", "Host: rebound.example"), 421),
        (("GET / HTTP/1.1", "Host: rebound.example:{port}"), 421),
        (("GET / HTTP/1.1", "Host: 127.0.0.1.rebound.example"), 421),
        (("GET / HTTP/1.1", "Host: bucket.127.0.0.1:{port}"), 421),
        (("GET / HTTP/1.1", "Host: 127.0.0.1:1"), 421),
        (("GET / HTTP/1.1", "Host: user@127.0.0.1:{port}"), 421),
        (("GET / HTTP/1.1", "Host: 127.0.0.1:{port}", "Host: rebound.example"), 421),
        (("GET / HTTP/1.1", "Host: rebound.example", "Host: 127.0.0.1:{port}"), 421),
        (("GET http://rebound.example/ HTTP/1.1", "Host: 127.0.0.1:{port}"), 421),
        (("GET http://a@127.0.0.1:{port}/ HTTP/1.1", "Host: 127.0.0.1:{port}"), 421),
        (("GET / HTTP/1.1", "Host: \u00e9"), 421),
        (("GET / HTTP/1.1", "Host: "), 400),
        (("GET / HTTP/1.1",), 400),
        (("GET / HTTP/1.0",), 400),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_all_other_names(port: int, lines: tuple[str, ...], status: int) -> None:
    assert ask(port, *lines) == status
