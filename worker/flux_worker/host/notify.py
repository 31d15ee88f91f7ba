"""systemd's notification protocol (sd_notify(3)): datagrams to the socket in NOTIFY_SOCKET."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

_PATIENCE_SECONDS = 5.0  # for what must arrive; progress may be lost, but must never block the worker


class Notifier:
    """Notifies systemd; does nothing without NOTIFY_SOCKET."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract namespace, whose addresses begin with a NUL byte.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(environment.get("WATCHDOG_USEC") or 0) / 1e6 if watched else 0.0
        """systemd expects a ping at least this often; 0: none."""

    def ready(self) -> None:
        """Tell systemd that the service is ready."""
        self._send("READY=1", patience=_PATIENCE_SECONDS)

    def status(self, text: str) -> None:
        """Set what `systemctl status` shows; also pings the watchdog."""
        self._send(f"STATUS={text}", *self._sign_of_life())

    def extend_start(self, seconds: float) -> None:
        """Let the start take so many seconds from now, also beyond TimeoutStartSec=; never fewer."""
        self._send(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    def ping(self) -> None:
        """Ping the watchdog."""
        self._send(*self._sign_of_life())

    def stopping(self) -> None:
        """Tell systemd that the service stops."""
        self._send("STOPPING=1", patience=_PATIENCE_SECONDS)

    def _sign_of_life(self) -> list[str]:
        return ["WATCHDOG=1"] if self.watchdog_seconds else []

    def _send(self, *variables: str, patience: float = 0) -> None:
        """Send one datagram; if the listener's buffer stays full for `patience` seconds, drop it."""
        if not self._address or not variables:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(patience)
            sender.connect(self._address)  # so that waiting for the listener costs no CPU
            sender.send("\n".join(variables).encode())
