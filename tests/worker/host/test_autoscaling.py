"""An answer from a proxy between the worker and AWS counts as no answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from flux_worker.host.autoscaling import Group
from tests.worker.conftest import CREDENTIALS


class _Page(BaseHTTPRequestHandler):
    """A page for people, as proxies send it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html><p>Please sign in</html>")

    def log_message(self, *_: object) -> None:
        """A test's output is long enough."""


@pytest.fixture
def proxy() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class _Instance:
    """Stands for the metadata service of an instance in a group."""

    def get(self, path: str) -> str:
        return {"instance-id": "i-0123456789abcdef0"}.get(path, "InService")


def test_a_proxys_page_is_said_and_the_hook_tried_again(
    proxy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": proxy}).items():
        monkeypatch.setenv(name, value)
    instance: Any = _Instance()
    assert not Group(instance, "eu-north-1").complete("Pending")
    assert "lifecycle hooks of Pending are retried" in caplog.text
