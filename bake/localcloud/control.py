"""The local cloud's own routes, apart from what its instances reach: served from a table, asked in JSON."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from werkzeug.wrappers import Request, Response

from bake.errors import BakeError, UsageError

_TIMEOUT = 60.0  # a busy host's daemon answers late; a dead one refuses at once
Route = Callable[[Request], Any]
Routes = Mapping[tuple[str, str], Route]
"""(method, path) -> what answers: something for JSON, or UsageError for a request that is wrong."""
Ask = Callable[[str, str, bytes | None], Any]
"""Asks such routes: method, path and content -> the answer. UsageError where the request is wrong."""


class Control:
    """WSGI application that serves routes: 400 with what is wrong, 404 for a route that is not there."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self.answer(Request(environ))(environ, start_response)

    def answer(self, request: Request) -> Response:
        """The answer to one request."""
        route = self._routes.get((request.method, request.path))
        if route is None:
            return Response("", 404)
        try:
            content, status = route(request), 200
        except UsageError as error:
            content, status = {"error": error.message}, 400
        return Response(json.dumps(content), status, content_type="application/json")


def over_http(url: str) -> Ask:
    """Asks the routes that are served at `url`, `http://address:port`."""

    def ask(method: str, path: str, content: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{url}{path}", content, method=method)  # noqa: S310
        # No proxy: the address is this machine's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 400:
                raise UsageError(str(json.load(error)["error"])) from error
            raise BakeError(f"{method} {url}{path}: HTTP {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise BakeError(f"{url} does not answer: {error}", hint="bake local status") from error

    return ask
