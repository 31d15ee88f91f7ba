"""What is waited for, by whom, and since when: every wait of the controller is one of `Waits`.

Whoever waits may be blocked, so a thread of its own tells of the waits that last. One can sleep only within a
wait, by `Wait.pause`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

FIRST = 10.0  # seconds until a wait is told, and then between two times


@dataclass(eq=False)
class Wait:
    """One wait. `what` continues "waiting for …"; after `limit` seconds, if any, nobody waits any more."""

    what: str
    limit: float | None = None
    detail: str = ""
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    told: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _tell: Callable[[Wait], None] = lambda wait: None

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return time.monotonic() - self._began

    def say(self, detail: str) -> None:
        """What is known about it now; the first time that is told at once."""
        self.detail = detail
        if self.told is None:
            self._tell(self)

    def pause(self, seconds: float) -> None:
        """Sleep until the next look."""
        time.sleep(seconds)

    def __str__(self) -> str:
        limit = "" if self.limit is None else f", {span(self.limit)} at most"
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.what} since {self.since.astimezone():%H:%M:%S} ({span(self.seconds)}{limit}){detail}"


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"


class Waits:
    """The waits that go on, in all threads; safe to use from each of them.

    `tell` is called with each wait that lasts for `first` seconds, and again as often; `over` at its end.
    `main_seconds` is how long the main thread has waited: other threads don't delay the bake.
    """

    def __init__(
        self,
        tell: Callable[[Wait], None] = lambda wait: None,
        over: Callable[[Wait], None] = lambda wait: None,
        first: float = FIRST,
    ) -> None:
        self.tell, self.over, self.first = tell, over, first
        self.main_seconds = 0.0
        self._going: dict[int, list[Wait]] = {}  # of each thread, the outermost first
        self._lock = threading.Lock()
        self._teller: threading.Thread | None = None

    @contextmanager
    def one(self, what: str, limit: float | None = None) -> Iterator[Wait]:
        """Wait for `what` as the block."""
        wait, thread = Wait(what, limit, _tell=self._told), threading.get_ident()
        with self._lock:
            mine = self._going.setdefault(thread, [])
            mine.append(wait)
            self._start()
        try:
            yield wait
        finally:
            with self._lock:
                mine.remove(wait)
                if not mine:
                    self._going.pop(thread, None)
                    if threading.current_thread() is threading.main_thread():
                        self.main_seconds += wait.seconds
            if wait.told is not None:
                self.over(wait)

    def say(self, detail: str) -> None:
        """What is known now about the innermost wait of this thread, if it waits."""
        if mine := self._going.get(threading.get_ident()):
            mine[-1].say(detail)

    def of_main_thread(self) -> Wait | None:
        """What the bake itself waits for; not what that consists of."""
        mine = self._going.get(threading.main_thread().ident or 0)
        return mine[0] if mine else None

    def _told(self, wait: Wait) -> None:
        wait.told = wait.seconds
        self.tell(wait)

    def _start(self) -> None:
        if self._teller is not None:
            return
        thread = threading.Thread(target=self._follow, name="waits", daemon=True)
        with suppress(RuntimeError):  # no more threads: what waits goes on, and nobody is told
            thread.start()
            self._teller = thread

    def _follow(self) -> None:
        """Tell of what lasts; end when nothing has been waited for in a while."""
        idle = 0.0
        while True:
            time.sleep(self.first / 10)
            with self._lock:
                idle = 0.0 if self._going else idle + self.first / 10
                if idle > self.first:
                    self._teller = None
                    return
                due = self._due()
            for wait in due:
                with suppress(Exception):  # a screen that fails must not end the telling
                    self._told(wait)

    def _due(self) -> list[Wait]:
        """The waits to tell now; of several for the same thing the one that has lasted longest."""
        longest: dict[str, Wait] = {}
        for wait in sorted((one for mine in self._going.values() for one in mine), key=lambda one: one.since):
            longest.setdefault(wait.what, wait)
        return [wait for wait in longest.values() if wait.seconds - (wait.told or 0.0) >= self.first]
