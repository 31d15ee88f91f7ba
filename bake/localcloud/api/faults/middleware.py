"""WSGI middleware that applies faults to AWS calls."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

from werkzeug.test import run_wsgi_app

from bake.localcloud.api.faults import calls, errors
from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.faults import AwsFaults

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


def _nobody(address: str) -> bool:
    return False


class Faulty:
    """WSGI middleware: a call that a fault strikes fails; all others pass on to `app` unchanged.

    `is_instance` says whether an address belongs to an instance of the cloud.
    """

    def __init__(
        self, app: WsgiApp, faults: AwsFaults, *, is_instance: Callable[[str], bool] = _nobody
    ) -> None:
        self._app = app
        self._faults = faults
        self._is_instance = is_instance

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # moto's own control calls are not AWS calls.
        if not self._faults.active() or environ.get("PATH_INFO", "").startswith("/moto-api"):
            return self._app(environ, start_response)
        of_instance = self._is_instance(environ.get("REMOTE_ADDR", ""))
        call = calls.read(environ, "guests" if of_instance else "host")
        strike = self._faults.take(call)
        if strike is None:
            return self._pass_on(call, environ, start_response)
        if strike.fault.kind == "lost":
            self._ask(call, environ)
            _drop(environ)
        calls.drain(environ)
        if strike.error is None:
            strike.hold()
            _drop(environ)
        answer = errors.answer(call, strike.error, environ.get("CONTENT_TYPE", ""))
        return answer(environ, start_response)

    def _pass_on(self, call: Call, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Pass the call on, and remember what it created if a fault needs it."""
        # S3 objects and disks are never read: they may be large, and no fault is about what they create.
        large = call.service == "ebs" or (call.service == "s3" and call.action != "CreateBucket")
        if large or not self._faults.watching():
            return self._app(environ, start_response)
        status, headers, content = self._ask(call, environ)
        start_response(status, headers)
        return [content]

    def _ask(self, call: Call, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        """Make the call and return its answer, held in memory."""
        body, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        content = b"".join(body)
        if status.startswith("2") and self._faults.watching():
            self._faults.created(call, content.decode(errors="replace"))
        return status, headers.to_wsgi_list(), content


def _drop(environ: dict[str, Any]) -> NoReturn:
    """Close the connection: the client gets no answer and can't know whether the call was made."""
    connection: socket.socket | None = environ.get("werkzeug.socket")
    if connection is not None:
        with suppress(OSError):  # the client may be gone already
            connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("dropped on request")
