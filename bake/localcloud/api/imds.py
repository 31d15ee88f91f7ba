"""The instance metadata service (IMDSv2): it knows callers by source address; tokens are per instance."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Request, Response

TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
MAX_TTL = 21600

# The versions that EC2 has; each has all the data here, whenever that came.
VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01"),
    *("2008-09-01", "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05"),
    *("2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28", "2018-08-17", "2018-09-24"),
    *("2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23", "2021-07-15", "2022-09-24", "2024-04-11"),
    "latest",
)

Tree = dict[str, Any]  # str -> leaf text or Tree


@dataclass(frozen=True)
class Metadata:
    """The metadata of one instance: the tree below `latest/`, user data, and whether a token is required.

    `hop_limit` is how many hops an answer with a token gets, the machine itself being the first.
    """

    tree: Tree
    user_data: bytes | None
    token_required: bool
    enabled: bool = True
    hop_limit: int = 1


@dataclass
class Tokens:
    """IMDSv2 session tokens. Each belongs to one address and ends after its time to live, in seconds."""

    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[str, float]] = field(default_factory=dict)

    def issue(self, address: str, ttl: int) -> str:
        now = self.clock()
        self._known = {token: entry for token, entry in self._known.items() if entry[1] > now}
        token = secrets.token_urlsafe(42)
        self._known[token] = (address, now + ttl)
        return token

    def valid(self, address: str, token: str) -> bool:
        owner, until = self._known.get(token, ("", 0.0))
        return owner == address and until > self.clock()


class Imds:
    """WSGI application; `lookup` finds the metadata of the instance with an address, or None."""

    def __init__(self, lookup: Callable[[str], Metadata | None]) -> None:
        self._lookup = lookup
        self._tokens = Tokens()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        return self._answer(request)(environ, start_response)

    def _answer(self, request: Request) -> Response:
        address = request.remote_addr or ""
        metadata = self._lookup(address)
        if metadata is None:
            return Response("", 404)
        if not metadata.enabled:
            return Response("", 403)
        if request.path == "/latest/api/token":
            return _within(metadata.hop_limit, request, self._token(request, address))
        if request.method not in {"GET", "HEAD"}:
            return Response("", 405)
        token = request.headers.get(TOKEN_HEADER)
        if token is None and metadata.token_required:
            return Response("", 401)
        if token is not None and not self._tokens.valid(address, token):
            return Response("", 401)
        return _read(metadata, request.path)

    def _token(self, request: Request, address: str) -> Response:
        if request.method != "PUT":
            return Response("", 405, headers={"Allow": "OPTIONS, PUT"})
        if "X-Forwarded-For" in request.headers:  # an open proxy, which asks on behalf of another
            return Response("", 403)
        text = request.headers.get(TTL_HEADER, "")
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_TTL:
            return Response("", 400)
        token = self._tokens.issue(address, int(text))
        return Response(token, 200, headers={TTL_HEADER: text}, content_type="text/plain")


def _within(hops: int, request: Request, response: Response) -> Response:
    """Let the answer travel so many hops, as EC2 does: a container on the machine is one further away.

    The server ends each connection with its answer. On one that went on, this one would be sent again with
    the hops of the next.
    """
    connection: socket.socket | None = request.environ.get("werkzeug.socket")
    if connection is not None:  # None in tests without a network
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
    return response


def _read(metadata: Metadata, path: str) -> Response:
    """Answer with a leaf, or with the listing of a folder, which may end in a slash."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return _text("\n".join(VERSIONS))
    if parts[0] not in VERSIONS:
        return Response("", 404)
    leaf = not path.endswith("/")
    if parts[1:] == ["user-data"]:
        if metadata.user_data is None or not leaf:
            return Response("", 404)
        return Response(metadata.user_data, content_type="application/octet-stream")
    node: Any = metadata.tree
    for part in parts[1:]:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, str) and leaf:
        return _text(node)
    if not isinstance(node, dict):
        return Response("", 404)
    extra = ["user-data"] if len(parts) == 1 and metadata.user_data is not None else []
    return _text("\n".join([*listing(node), *extra]))


def listing(node: Tree) -> list[str]:
    """The lines of a directory. A key pair is listed as `0=name`, which is why "=name" is kept as a leaf."""
    lines = []
    for key, value in node.items():
        if isinstance(value, dict):
            lines.append(f"{key}={value['=name']}" if "=name" in value else f"{key}/")
        elif key != "=name":
            lines.append(key)
    return lines


def _text(content: str) -> Response:
    return Response(content, content_type="text/plain")
