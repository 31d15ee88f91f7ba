"""Answers of S3 at the bandwidth of an instance: as much as it gets in all, and on one connection.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-network-bandwidth.html
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from bake.localcloud.machines.filling import Bandwidth

_PIECE = 128 << 10  # bytes sent at a time
# Seconds that a sender may be behind and still catch up: a busy host wakes it late.
_BEHIND = 0.02


class _Schedule:
    """When the next bytes of a rate may have been sent; monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._next = now

    def add(self, size: int, rate: float, now: float) -> float:
        """Take the time that `size` bytes need at `rate` MB/s, and return when it ends."""
        self._next = max(self._next, now - _BEHIND) + size / (rate * 1e6)
        return self._next


class Pacer:
    """Paces bodies of answers, by the address of the client; `bandwidth` may be changed at any time.

    An answer stands for a flow: clients have one connection for each answer that is on its way.
    """

    def __init__(
        self,
        bandwidth: Bandwidth | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.bandwidth = bandwidth or Bandwidth()
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._clients: dict[str, _Schedule] = {}

    def paced(self, address: str, body: Iterable[bytes]) -> Iterable[bytes]:
        """The same body for a client at `address`, in pieces that come at its bandwidth."""
        unlimited = self.bandwidth.s3 is None and self.bandwidth.flow is None
        return body if unlimited else self._pieces(address, body)

    def _pieces(self, address: str, body: Iterable[bytes]) -> Iterator[bytes]:
        flow = _Schedule(self._clock())
        try:
            for content in body:
                for start in range(0, len(content), _PIECE):
                    piece = content[start : start + _PIECE]
                    if (late := self._due(address, flow, len(piece)) - self._clock()) > 0:
                        self._sleep(late)
                    yield piece
        finally:
            if (close := getattr(body, "close", None)) is not None:
                close()

    def _due(self, address: str, flow: _Schedule, size: int) -> float:
        limits, now = self.bandwidth, self._clock()
        due = now
        if limits.flow is not None:
            due = flow.add(size, limits.flow, now)
        if limits.s3 is not None:
            with self._lock:
                shared = self._clients.setdefault(address, _Schedule(now))
                due = max(due, shared.add(size, limits.s3, now))
        return due
