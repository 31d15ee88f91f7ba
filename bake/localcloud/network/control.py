"""The control interface of a local cloud, out of its instances' reach: routes that answer in JSON over HTTP.

A cloud serves them on a unix socket that only root can open.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

from bake.errors import BakeError, UsageError
from bake.localcloud.settings import Settings

HOST = "local-cloud"  # the Host header on the socket; no name server knows this name
_TIMEOUT = 60.0  # a busy host's daemon answers late; a dead one refuses at once
Route = Callable[[Request], Any]
Routes = Mapping[tuple[str, str], Route]
"""(method, path) -> a function whose result is sent as JSON; it raises UsageError for a wrong request.

A path that ends in `/*` is for whatever stands there, unless that has a route of its own.
"""
Ask = Callable[[str, str, bytes | None], Any]
"""Calls a route: method, path, content -> the answer. UsageError for a wrong request, else BakeError."""


class NoAnswer(BakeError):
    """The cloud is down, or went down during the answer."""


class Control:
    """WSGI application that serves routes: 400 with the error, 404 for an unknown route."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        any_below = f"{request.path.rpartition('/')[0]}/*"
        route = self._routes.get((request.method, request.path))
        route = route or self._routes.get((request.method, any_below))
        if route is None:
            return Response("", 404)
        try:
            content, status = route(request), 200
        except UsageError as error:
            content, status = {"error": error.message}, 400
        return Response(json.dumps(content), status, content_type="application/json")


def over_socket(settings: Settings) -> Ask:
    """Call the routes of the cloud with these settings; NoAnswer if it is down."""
    return lambda method, path, content: _ask(_OverSocket(settings), method, path, content)


def over_http(url: str) -> Ask:
    """Call the routes that are served at `url`, `http://address:port`."""

    def ask(method: str, path: str, content: bytes | None) -> Any:
        # Without a proxy: the address is this machine's.
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT)
        return _ask(connection, method, path, content)

    return ask


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, settings: Settings) -> None:
        super().__init__(HOST, timeout=_TIMEOUT)
        self._path = str(settings.control)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(connection: http.client.HTTPConnection, method: str, path: str, content: bytes | None) -> Any:
    try:
        connection.request(method, path, content)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(
            f"the local cloud does not answer: {error or type(error).__name__}", hint="bake local status"
        ) from error
    finally:
        connection.close()
    if answer.status == 400:
        raise UsageError(str(json.loads(body)["error"]))
    if answer.status != 200:
        raise BakeError(f"{method} {path}: HTTP {answer.status}")
    return json.loads(body)
