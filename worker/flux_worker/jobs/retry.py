"""Retry calls to AWS until they succeed, the worker must stop, or AWS refuses them permanently."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from ..aws.errors import describe, failed_call
from ..aws.retryable import is_permanent
from ..backoff import Backoff
from ..errors import CallRefused, Interrupted
from ..host.stop import StopRequest
from .queue import AWS_ERRORS

log = logging.getLogger(__name__)

PAUSES = Backoff(first=1.0, longest=30.0)

T = TypeVar("T")


class Reporter(Protocol):
    """Takes the signs of life of whoever retries: a `Monitor`, or the `Background`."""

    def doing(self, text: str) -> None:
        """What is done now, in words."""

    def ping(self) -> None:
        """A sign of life."""

    def limit_wait(self, seconds: float) -> float:
        """The part of `seconds` that may pass before the next sign of life."""


def pauses() -> Iterator[float]:
    """Seconds before each further try; endless."""
    return PAUSES.jittered()


class RetryPolicy:
    """Retries calls to AWS, with a growing pause.

    tenacity does not fit: here a stop request ends a pause, systemd's watchdog is pinged during one, and
    whether an error is permanent depends on how long the call has been retried.
    """

    def __init__(self, stop: StopRequest, reporter: Reporter) -> None:
        self._stop = stop
        self._reporter = reporter

    def call(self, what: str, act: Callable[[], T], *, while_stopping: bool = True) -> T:
        """Call `act` until it succeeds; returns its result.

        Raises CallRefused if AWS will refuse it until somebody changes something, and Interrupted if there is
        no time for another try: unless `while_stopping`, as soon as the worker is asked to stop.
        """
        began = time.monotonic()
        for wait in pauses():
            try:
                return act()
            except AWS_ERRORS as error:
                if is_permanent(error, time.monotonic() - began):
                    raise CallRefused(
                        failed_call(error).action or "a call", f"{what}: {describe(error)}"
                    ) from error
                log.error("%s failed, trying again in %.1f s: %s", what, wait, describe(error))
                self.wait(wait, f"Trying again: {what}", while_stopping=while_stopping)
        raise AssertionError("pauses never end")

    def ping(self) -> None:
        """Ping systemd's watchdog between calls that may take long."""
        self._reporter.ping()

    def wait(self, seconds: float, doing: str, *, while_stopping: bool = False) -> None:
        """Wait while pinging systemd's watchdog. Raises Interrupted as `call` does."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop.requested and not (while_stopping and self._stop.has_time_for(left + 1)):
                raise Interrupted(f"the worker must stop ({self._stop.why})")
            self._reporter.doing(doing)
            if self._stop.requested:
                time.sleep(min(left, 1))  # wait() would return at once
            else:
                self._stop.wait(self._reporter.limit_wait(left))
