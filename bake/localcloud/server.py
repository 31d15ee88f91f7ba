"""Small threaded HTTP servers on the bridge address."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from bake.errors import UsageError


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    protocol_version = "HTTP/1.1"  # connections stay open: SDKs make many small calls

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing of each request; what fails is logged where it fails."""


def serve(address: str, port: int, app: Callable[..., Any], what: str) -> BaseWSGIServer:
    """Start serving on a thread of its own; port 0 takes a free one. UsageError when the port is taken."""
    try:
        server = make_server(address, port, app, threaded=True, request_handler=_Handler)
    except (OSError, SystemExit) as error:  # werkzeug ends the process when a port is taken
        if isinstance(error, OSError) and error.errno not in {errno.EADDRINUSE, None}:
            raise
        raise UsageError(
            f"port {port} on {address} is taken; the local cloud needs it for {what}",
            hint=f"see what has it with: ss -ltnp 'sport = :{port}'",
        ) from error
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name=what, daemon=True
    ).start()
    return server
