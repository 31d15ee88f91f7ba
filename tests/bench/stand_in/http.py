"""HTTP/1.1 with keep-alive on asyncio's sockets, as little of it as botocore needs."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import unquote

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""
Handler = Callable[["Request", "Reply"], str]
"""Answers a request, now or later; returns the operation's name."""
_REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found", 412: "Precondition Failed"}
_SERVICE = re.compile(r"Credential=[^/]+/\d+/[^/]+/(\w+)/")  # the signature's scope


@dataclass(frozen=True, slots=True)
class Request:
    """One call: header names are in lower case, the path is decoded, the query is not."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def service(self) -> str:
        """The service that the signature names."""
        found = _SERVICE.search(self.headers.get("authorization", ""))
        return found[1] if found else ""


class Figures:
    """What the process did since its start: calls by operation, and its own CPU seconds; and who is there."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.connections = 0

    def as_json(self) -> dict[str, object]:
        """For `GET /figures`."""
        spent = time.process_time()
        return {"calls": dict(self.calls), "cpu_seconds": spent, "connections": self.connections}


class Reply:
    """Where the answer to one request goes."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._head_only = request.method == "HEAD"
        self.delay = 0.0
        """Seconds before the answer is sent, as if it had a longer way."""

    @property
    def open(self) -> bool:
        """Whether anybody waits for the answer."""
        return not self._connection.closed

    def send(self, answer: Answer) -> None:
        """Send the answer, after the delay."""
        data = _encode(answer, head_only=self._head_only)
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._connection.write, data)
        else:
            self._connection.write(data)


class Connection(asyncio.Protocol):
    """One client's connection; requests on it come one after the other."""

    def __init__(self, handler: Handler, figures: Figures) -> None:
        self._handler = handler
        self._figures = figures
        self._data = bytearray()
        self._head: tuple[str, str, dict[str, str], int] | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this first; it sets TCP_NODELAY itself."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._figures.connections += 1

    def connection_lost(self, _error: Exception | None) -> None:
        """The client is gone: what it waits for goes to nobody."""
        self.closed = True
        self._figures.connections -= 1

    def data_received(self, data: bytes) -> None:
        """Collect data until a request is whole."""
        self._data += data
        while self._one_request():
            pass

    def write(self, data: bytes) -> None:
        """Send bytes, unless the client is gone."""
        if not self.closed and self._transport:
            self._transport.write(data)

    def _one_request(self) -> bool:
        if self._head is None and not self._read_head():
            return False
        assert self._head
        method, target, headers, length = self._head
        if len(self._data) < length:
            return False
        body = bytes(self._data[:length])
        del self._data[:length]
        self._head = None
        path, _, query = target.partition("?")
        request = Request(method, unquote(path), query, headers, body)
        self._figures.calls[self._handler(request, Reply(self, request))] += 1
        return True

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = self._data[:end].decode("latin-1").split("\r\n")
        del self._data[: end + 4]
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0))
        if "100-continue" in headers.get("expect", "").lower() and len(self._data) < length:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # botocore holds the body back for it
        self._head = method, target, headers, length
        return True


def _encode(answer: Answer, *, head_only: bool) -> bytes:
    status, headers, body = answer
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}", f"Date: {_date(int(time.time()))}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + body


@functools.lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
