"""New resources, which some answers know and some do not yet, as if replicas answered in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bake.localcloud.api.consistency.schedule import LONGEST, Delay, Schedule
from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.errors import AwsError
from bake.localcloud.api.faults.eventual_consistency import EventualConsistency

# What no schedule can exceed: older things are known to all.
_OLD = max(LONGEST.values())
# These answer success whatever there is: see `bake.localcloud.api.events`.
_DEAF = {("events", "PutEvents")}


@dataclass
class _Fresh:
    since: float
    delay: Delay
    asked: int = 0


class Replicas:
    """Which of the resources that were created a moment ago an answer knows. Thread-safe.

    What the API did not create since the cloud is up is old: the account's fixtures, a saved cloud's things.
    """

    def __init__(self, schedule: Schedule, clock: Callable[[], float] = time.monotonic) -> None:
        self.schedule = schedule
        self._clock = clock
        self._known = EventualConsistency()
        self._fresh: dict[str, _Fresh] = {}
        self._lock = threading.Lock()

    def learn(self, call: Call, answer: str) -> None:
        """Note what a successful call created, or deleted."""
        if self.schedule.lenient:
            return
        created = self._known.learn(call, answer)
        now = self._clock()
        with self._lock:
            for key, kind in created:
                if (delay := self.schedule.next(kind)).seconds:
                    self._fresh[key] = _Fresh(now, delay)
            self._fresh = {key: one for key, one in self._fresh.items() if now - one.since < _OLD}
        if call.action.startswith(("Delete", "Deregister")):
            for key, _ in list(self._known.named(call)):
                self._known.forget(key)
                self._forget(key)

    def missing(self, call: Call) -> AwsError | None:
        """The error for a resource that the call names, if the answer does not know it yet."""
        if not self._fresh or (call.service, call.action) in _DEAF:
            return None
        for key, error in self._known.named(call, self._keys("")):
            if not self.shows(key):
                return error
        return None

    def shows(self, key: str) -> bool:
        """Whether the next answer knows this id, or `service:Operation name`: each answer is another one."""
        with self._lock:
            fresh = self._fresh.get(key)
            if fresh is None or self.schedule.lenient or self._clock() - fresh.since >= fresh.delay.seconds:
                return True
            fresh.asked += 1
            return (fresh.asked % 2 == 1) == fresh.delay.shown_first

    def left_out(self, prefix: str, named: Collection[str] = ()) -> set[str]:
        """The fresh keys with this beginning, except `named`, that the next answer does not know."""
        return {key for key in self._keys(prefix) if key not in named and not self.shows(key)}

    def _keys(self, prefix: str) -> set[str]:
        with self._lock:
            return {key for key in self._fresh if key.startswith(prefix)}

    def _forget(self, key: str) -> None:
        with self._lock:
            self._fresh.pop(key, None)
