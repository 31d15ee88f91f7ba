"""Changes that last a while after they are shown: what has stopped, ended or begun a moment ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bake.localcloud.api.consistency.schedule import Delay, Schedule

STOPPED, PENDING = "stopped", "pending image"
VALIDATION, REPORT = "image parameter", "usage report"
QUOTA, INTERFACE = "released quota", "released interface"


class Settling:
    """How long the changes of things still take. Thread-safe."""

    def __init__(self, schedule: Schedule, clock: Callable[[], float] = time.monotonic) -> None:
        self._schedule = schedule
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, float], Delay] = {}
        self._begun: dict[tuple[str, str], float] = {}

    def begin(self, kind: str, key: str) -> None:
        """Note that a change begins."""
        with self._lock:
            self._begun[kind, key] = self._clock()

    def left(self, kind: str, key: str, since: float | None = None) -> float:
        """The seconds that a change still takes: one that was noted, or that was shown at `since`."""
        with self._lock:
            since = self._begun.get((kind, key)) if since is None else since
            if since is None:
                return 0.0
            change = kind, key, since
            if change not in self._known:
                self._known[change] = self._schedule.next(kind)
            return max(0.0, since + self._known[change].seconds - self._clock())
