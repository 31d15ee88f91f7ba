"""The world outside the host: a routed network namespace with servers and neighbours."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_NETWORK = 0x40000000  # CLONE_NEWNET


@dataclass(frozen=True)
class Outside:
    """The namespace: its name, its own address, and the host's towards it."""

    name: str
    address: str
    host: str

    def make(self, work: Callable[[], T]) -> T:
        """Call `work` out there: the sockets that it makes stay there."""

        def enter_and_work() -> T:
            place = os.open(Path("/run/netns") / self.name, os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(place, _NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(place)
            return work()

        with ThreadPoolExecutor(1) as thread:  # which ends with it: no other work ever runs out there
            return thread.submit(enter_and_work).result()

    def command(self, *argv: str) -> list[str]:
        """A command line that runs out there."""
        return ["ip", "netns", "exec", self.name, *argv]


@contextmanager
def outside() -> Iterator[Outside]:
    """Make it, and remove it. The addresses are those that are for tests of networks (RFC 2544)."""
    number = os.getpid() % 32768 * 4
    host, address = (
        f"198.{18 + (number + n >> 16)}.{number + n >> 8 & 255}.{number + n & 255}" for n in (1, 2)
    )
    name = f"bake-out-{os.getpid()}"
    cable = f"bko{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("addr", "add", f"{host}/30", "dev", cable)
        _ip("link", "set", cable, "up")
        _ip("-n", name, "addr", "add", f"{address}/30", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "route", "add", "default", "via", host)
        yield Outside(name, address, host)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
