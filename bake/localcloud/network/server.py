"""Small threaded HTTP servers: on the bridge address, and on the control socket."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from bake.errors import UsageError
from bake.localcloud.network.control import HOST, Control, Routes
from bake.localcloud.network.hosts import OwnHosts


def _host_time() -> datetime:
    return datetime.now(UTC)


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    protocol_version = "HTTP/1.1"  # connections stay open: SDKs make many small calls

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log no requests; failures are logged where they happen."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The server's clock, for the Date header."""
        now: Callable[[], datetime] = getattr(self.server, "now", _host_time)
        return format_datetime(now(), usegmt=True)

    def send_header(self, keyword: str, value: str) -> None:
        """Send each answer's Date once, the server's: one that the application set is left out."""
        if keyword.lower() != "date" or value == self._date:
            super().send_header(keyword, value)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin the answer with the Date of this moment."""
        self.send_response_only(code, message)
        self.send_header("Server", self.version_string())
        self._date = self.date_time_string()
        self.send_header("Date", self._date)
        self._date = ""

    _date = ""


def serve(
    address: str,
    port: int,
    app: Callable[..., Any],
    what: str,
    also: Iterable[str] = (),
    now: Callable[[], datetime] = _host_time,
) -> BaseWSGIServer:
    """Start serving on a thread; port 0 takes a free port. UsageError if the port is taken.

    Answers' Date is `now`, in UTC. Who asks for another host than `address` (with or without the port), or
    than those of `also`, is refused.
    """
    try:
        server = make_server(address, port, app, threaded=True, request_handler=_Handler)
    except (OSError, SystemExit) as error:  # werkzeug exits if a port is taken
        if isinstance(error, OSError) and error.errno not in {errno.EADDRINUSE, None}:
            raise
        raise UsageError(
            f"port {port} on {address} is taken; the local cloud needs it for {what}",
            hint=f"see what has it with: ss -ltnp 'sport = :{port}'",
        ) from error
    names = (address, "localhost") if ip_address(address).is_loopback else (address,)
    served = [*names, *(f"{name}:{server.server_port}" for name in names), *also]
    server.app = OwnHosts(app, served)
    server.now = now  # type: ignore[attr-defined]
    return _start(server, what)


def serve_control(socket: Path, routes: Routes) -> BaseWSGIServer:
    """Serve `routes` on a unix socket that only root can open."""
    socket.unlink(missing_ok=True)
    app = OwnHosts(Control(routes), [HOST])
    mask = os.umask(0o177)
    try:
        server = make_server(f"unix://{socket}", 0, app, threaded=True, request_handler=_Handler)
    finally:
        os.umask(mask)
    return _start(server, "control")


def _start(server: BaseWSGIServer, what: str) -> BaseWSGIServer:
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name=what, daemon=True
    ).start()
    return server
