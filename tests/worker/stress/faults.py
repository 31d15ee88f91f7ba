"""A proxy in front of moto that fails one call in so many, each service in its own words.

Requests are answered with 500, 503, throttling or, to a conditional write, a conflict; or the connection is
reset, before the request reached the service or after: then it took effect, and only the answer is lost.
Below one prefix nobody may write, and for a spell a whole service may refuse everything.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SERVICES = ("s3", "sqs", "events")
KINDS = ("500", "503", "throttled", "reset before", "reset after")
CONFLICT = "409"  # S3's answer to a conditional write where another write is under way
REFUSALS = {
    "s3": ("AccessDenied", "ExpiredToken", "RequestTimeTooSkewed"),
    "sqs": ("AccessDenied", "ExpiredToken", "SignatureDoesNotMatch"),
    "events": ("AccessDeniedException", "ExpiredTokenException", "InvalidSignatureException"),
}
"""By service, what it answers for a spell: the first lasts, as it seems, the others are known to pass."""
FORBIDDEN = "forbidden/"
NOT_TAKEN = "not taken"  # PutEvents answers 200 and says inside that it took nothing
DELAY_DIVISOR = 20
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class FaultyProxy:
    """Passes calls on to `upstream`; fails one in `one_in` (None: none), drawn by lot with `seed`.

    What a worker says with `hurried` messages goes `HURRY` times faster: returns grow to minutes.
    """

    def __init__(self, upstream: str, *, seed: int, one_in: int | None = 5) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.one_in = one_in
        self.calls: Counter[str] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()
        self.conditional = threading.Lock()
        self.fast_retry: set[str] = set()
        self.lost: Counter[tuple[str, int]] = Counter()
        """Bodies that were received, with the number of the receive, and of which no worker heard."""
        self.receipts: dict[str, str] = {}
        """By receipt, the body of each hurried message."""
        self._dice = {service: random.Random(f"{seed} {service}") for service in SERVICES}
        self._down_until = dict.fromkeys(SERVICES, 0.0)
        self._refusing: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Call)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        """Serve from a thread of this process for as long as the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def outage(self, service: str, seconds: float) -> None:
        """From now on every call to this service fails, for so long."""
        self._down_until[service] = time.monotonic() + seconds

    def refuse(self, service: str, code: str, seconds: float) -> None:
        """From now on this service answers every call with this code, for so long."""
        self._refusing[service] = (time.monotonic() + seconds, code)

    def refusal(self, service: str, command: str, path: str) -> str | None:
        """The code with which this call is refused, if it is."""
        until, code = self._refusing.get(service, (0.0, ""))
        if time.monotonic() < until:
            self.failed[service, code] += 1
            return code
        return "AccessDenied" if command == "PUT" and f"/images/{FORBIDDEN}" in path else None

    def fault(self, service: str, operation: str, *, conditional: bool = False) -> str | None:
        """What goes wrong with this call: one of KINDS, CONFLICT, NOT_TAKEN, or None."""
        with self._lock:
            self.calls[service] += 1
            dice = self._dice[service]
            unlucky = dice.random() < (1 / self.one_in if self.one_in else 0)
            if not unlucky and time.monotonic() >= self._down_until[service]:
                return None
            own = [CONFLICT] if conditional else [NOT_TAKEN] if operation.endswith("PutEvents") else []
            kind = dice.choice([*KINDS, *own])
            self.failed[service, kind] += 1
            return kind


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultyProxy

    def shutdown_request(self, request: Any) -> None:
        """Close only: the polite shutdown that the base class begins with would hide a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that was killed leaves its calls behind; that is what happens here all the time."""


class _Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # head and body in one packet
    server: _Server

    def handle_expect_100(self) -> bool:
        """botocore holds S3's bodies back for a second unless this goes out at once."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _pass_on(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        service, operation = self._service(), self.headers.get("X-Amz-Target", "")
        fault = proxy.fault(service, operation, conditional=self._conditional())
        if code := proxy.refusal(service, self.command, self.path):
            self._answer(*_error(service, 403 if service == "s3" else 400, code))
        elif fault is None:
            answer = self._ask(proxy, _shorten_delay(proxy, operation, body))
            _note(proxy, operation, answer[2])
            self._answer(*answer)
        elif fault in ("reset before", "reset after"):
            if fault == "reset after":
                _note_lost(proxy, operation, self._ask(proxy, _shorten_delay(proxy, operation, body))[2])
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close_connection = True
        else:
            self._answer(*_refusal(service, fault))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _service(self) -> str:
        """As the signature's scope names it: Credential=KEY/DATE/REGION/SERVICE/aws4_request."""
        found = re.search(r"Credential=[^/]+/\d+/[^/]+/(\w+)/", self.headers.get("Authorization", ""))
        return found[1] if found else "s3"

    def _conditional(self) -> bool:
        return any(name.lower().startswith("if-") for name in self.headers) and self.command != "GET"

    def _ask(self, proxy: FaultyProxy, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        # S3 decides conditional writes one after the other; moto's threads would let two of them through.
        with proxy.conditional if self._conditional() else contextlib.nullcontext():
            upstream = http.client.HTTPConnection(proxy.upstream, timeout=60)
            with contextlib.closing(upstream):
                upstream.request(self.command, self.path, body, headers)
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
        """The counters say what was asked."""


def _refusal(service: str, fault: str) -> tuple[int, list[tuple[str, str]], bytes]:
    if fault == NOT_TAKEN:
        entry = {"ErrorCode": "ThrottlingException", "ErrorMessage": "Rate exceeded"}
        content: dict[str, Any] = {"FailedEntryCount": 1, "Entries": [entry]}
        return 200, [("Content-Type", "application/x-amz-json-1.1")], json.dumps(content).encode()
    status, code = {
        "500": (500, "InternalError"),
        "503": (503, "ServiceUnavailable"),
        CONFLICT: (409, "ConditionalRequestConflict"),
        "throttled": (503, "SlowDown") if service == "s3" else (400, "ThrottlingException"),
    }[fault]
    return _error(service, status, code)


def _error(service: str, status: int, code: str) -> tuple[int, list[tuple[str, str]], bytes]:
    if service == "s3":
        text = f"<Error><Code>{code}</Code><Message>Please try again.</Message></Error>"
        return status, [("Content-Type", "application/xml")], text.encode()
    content = {"__type": code, "message": "Please try again."}
    return status, [("Content-Type", "application/x-amz-json-1.0")], json.dumps(content).encode()


def _shorten_delay(proxy: FaultyProxy, operation: str, body: bytes) -> bytes:
    """Of a message that is in a hurry, a long return becomes a short one."""
    if not operation.endswith("ChangeMessageVisibility"):
        return body
    requested = json.loads(body)
    if requested["ReceiptHandle"] in proxy.receipts and requested["VisibilityTimeout"] >= DELAY_DIVISOR:
        requested["VisibilityTimeout"] //= DELAY_DIVISOR
    return json.dumps(requested).encode()


def _messages(operation: str, answer: bytes) -> list[dict[str, Any]]:
    received = operation.endswith("ReceiveMessage") and answer.startswith(b"{")
    return json.loads(answer).get("Messages", []) if received else []


def _note(proxy: FaultyProxy, operation: str, answer: bytes) -> None:
    for message in _messages(operation, answer):
        if message["Body"] in proxy.fast_retry:
            proxy.receipts[message["ReceiptHandle"]] = message["Body"]


def _note_lost(proxy: FaultyProxy, operation: str, answer: bytes) -> None:
    for message in _messages(operation, answer):
        proxy.lost[message["Body"], int(message["Attributes"]["ApproximateReceiveCount"])] += 1
