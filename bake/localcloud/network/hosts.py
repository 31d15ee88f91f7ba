"""Answer only requests whose Host header is one of the server's own names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Response

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class OwnHosts:
    """WSGI middleware: 421 for a `Host` that is not among `names`, and 400 without one.

    A page of the Web whose name is made to lead here (DNS rebinding) sends its own name as Host. Names are
    compared as they are sent, with their port, in small letters; an absolute request URI counts as Host.
    """

    def __init__(self, app: WsgiApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        if host.lower() in self._names:
            return self._app(environ, start_response)
        text = f"this server is none of the name {host!a}" if host else "a request needs a Host"
        answer = Response(f"{text}\n", 421 if host else 400, content_type="text/plain")
        return answer(environ, start_response)
