"""Trying again what AWS does not take, for as long as there is time, unless it refuses for good."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..aws.errors import call_of, described
from ..aws.retryable import lasts
from ..errors import Interrupted, Refused
from ..host.monitor import Monitor
from ..host.stop import StopRequest
from .queue import AWS_ERRORS

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")


def pauses() -> Iterator[float]:
    """Seconds before each further try: growing, and never quite the same for two workers."""
    for number in itertools.count():
        yield random.uniform(0.5, 1) * min(2.0 ** min(number, 16), LONGEST_PAUSE_SECONDS)  # noqa: S311


class Persistence:
    """Tries until it works, or until the worker has to end."""

    def __init__(self, stop: StopRequest, monitor: Monitor) -> None:
        self._stop = stop
        self._monitor = monitor

    def insist(self, what: str, act: Callable[[], T], *, while_stopping: bool = True) -> T:
        """What `act` gives, once AWS takes it.

        Raises Refused where AWS will not take it before somebody changes something, and Interrupted when
        there is no time left for another try; at once when the worker is asked to stop, unless
        `while_stopping`.
        """
        began = time.monotonic()
        for pause in pauses():
            try:
                return act()
            except AWS_ERRORS as error:
                if lasts(error, time.monotonic() - began):
                    raise Refused(call_of(error).action or "a call", f"{what}: {described(error)}") from error
                log.error("%s failed, trying again in %.1f s: %s", what, pause, described(error))
                self.pause(pause, f"Trying again: {what}", while_stopping=while_stopping)
        raise AssertionError("pauses never end")

    def alive(self) -> None:
        """A sign of life between calls that succeed, but may take long."""
        self._monitor.ping()

    def pause(self, seconds: float, doing: str, *, while_stopping: bool = False) -> None:
        """Wait, with signs of life. Raises Interrupted as `insist` does."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop.asked and not (while_stopping and self._stop.allows(left + 1)):
                raise Interrupted(f"the worker has to end ({self._stop.why})")
            self._monitor.doing(doing)
            if self._stop.asked:
                time.sleep(min(left, 1))  # wait() would come back at once
            else:
                self._stop.wait(self._monitor.patience(left))
