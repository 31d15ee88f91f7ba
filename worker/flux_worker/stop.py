"""Being asked to stop, by SIGTERM or SIGINT."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(BaseException):
    """Asked to stop while idle; a BaseException so that no library swallows it."""


class StopRequest:
    """SIGTERM and SIGINT: stop at once while idle, after the job in hand while busy."""

    def __init__(self) -> None:
        self.asked = False
        self._busy = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._arrived)

    @contextlib.contextmanager
    def finish_first(self) -> Iterator[None]:
        """A request that arrives inside the block waits for its end."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if first and not self._busy:
            raise Stopped
