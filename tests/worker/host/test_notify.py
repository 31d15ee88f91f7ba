"""sd_notify against real datagram sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flux_worker.host.notify import Notifier


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(lambda folder: str(folder / "notify"), id="path"),
        pytest.param(lambda folder: f"@flux-worker-test-{os.getpid()}", id="abstract"),
    ],
)
def test_messages_arrive(address: Callable[[Path], str], tmp_path: Path) -> None:
    name = address(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        listener.settimeout(60)
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "90000000"})
        assert notifier.watchdog_seconds == 90
        notifier.ready()
        notifier.status("Drawing")
        notifier.stopping()
        assert listener.recv(99) == b"READY=1"
        assert listener.recv(99) == b"STATUS=Drawing\nWATCHDOG=1"
        assert listener.recv(99) == b"STOPPING=1"


def test_a_listener_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        started = time.monotonic()
        for step in range(2_000):
            notifier.status(f"step {step}")
        assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="no-systemd"),
        pytest.param({"NOTIFY_SOCKET": "/no/such/socket"}, id="nobody-listens"),
    ],
)
def test_without_a_listener_it_is_silent(environment: dict[str, str]) -> None:
    Notifier(environment).ready()


def test_no_pings_where_the_watchdog_watches_another_process() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"})
    assert notifier.watchdog_seconds == 0
