"""An HTTP proxy in front of moto; subclasses answer some calls themselves."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

Answer = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class AwsProxy:
    """Passes every call on to `upstream`."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.calls: Counter[str] = Counter()
        self.conditional = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), Call)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Serve from a thread of this process for as long as the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def respond(self, call: Call) -> Answer | None:
        """The answer to a call; None closes the connection without one."""
        return call.forward()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: AwsProxy

    def shutdown_request(self, request: Any) -> None:
        """Close only: the polite shutdown that the base class begins with would hide a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that is killed leaves its calls behind; that is nothing to report."""


class Call(BaseHTTPRequestHandler):
    """One call to AWS."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # head and body in one packet
    server: _Server
    body = b""

    def handle_expect_100(self) -> bool:
        """botocore holds S3's bodies back for a second unless this goes out at once."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.proxy.respond(self)
        if answer is None:
            self.close_connection = True
        else:
            self._answer(*answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    @property
    def service(self) -> str:
        """As the signature's scope names it: Credential=KEY/DATE/REGION/SERVICE/aws4_request."""
        found = re.search(r"Credential=[^/]+/\d+/[^/]+/(\w+)/", self.headers.get("Authorization", ""))
        return found[1] if found else "s3"

    @property
    def target(self) -> str:
        """The operation, for services that name it in a header; empty for others."""
        return self.headers.get("X-Amz-Target", "")

    @property
    def conditional(self) -> bool:
        """Whether this is a write on a condition."""
        return any(name.lower().startswith("if-") for name in self.headers) and self.command != "GET"

    def reset(self) -> None:
        """Have the connection end by a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def forward(self, body: bytes | None = None) -> Answer:
        """What the upstream answers to this call, or to the same with another body."""
        proxy = self.server.proxy
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        # S3 decides conditional writes one after the other; moto's threads would let two of them through.
        with proxy.conditional if self.conditional else contextlib.nullcontext():
            upstream = http.client.HTTPConnection(proxy.upstream, timeout=60)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, self.body if body is None else body, headers)
                answer = upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        stated = {name.lower(): value for name, value in headers}
        length = stated.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The counters say what was called."""


def error(service: str, status: int, code: str, message: str) -> Answer:
    """An error as the service writes it."""
    if service == "s3":
        return xml(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>")
    if service in ("sts", "iam"):
        content = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        return xml(status, f"<ErrorResponse>{content}</ErrorResponse>")
    headers = [("Content-Type", "application/x-amz-json-1.1")]
    return status, headers, json.dumps({"__type": code, "message": message}).encode()


def xml(status: int, text: str) -> Answer:
    """An answer of a service that speaks XML."""
    return status, [("Content-Type", "text/xml")], text.encode()
