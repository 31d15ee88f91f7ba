"""Check every hour that the event bus exists, and read the queue's redrive policy.

EventBridge has accepted events for buses that do not exist (https://github.com/aws/aws-cli/issues/9186), so
that nobody would hear of the images.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..aws.errors import DENIED, NOT_THERE, describe, error_code
from ..host.monitor import Monitor
from .queue import AWS_ERRORS, JobQueue
from .retry import pauses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_events import EventBridgeClient

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
_UNKNOWN_SECONDS = 60.0  # after a check that AWS did not answer


@dataclass
class Prerequisites:
    """Checks what the worker depends on and does not learn from its own calls."""

    queue: JobQueue
    events: EventBridgeClient
    event_bus: str
    monitor: Monitor
    max_receives: int | None = field(default=None, init=False)
    """After so many receives SQS dead-letters a message; 0: never; None: unknown."""
    _next_bus_check: float = field(default=float("-inf"), init=False)
    _next_queue_check: float = field(default=float("-inf"), init=False)
    _queue_pauses: Iterator[float] = field(default_factory=pauses, init=False)
    """The pauses between tries to read the redrive policy."""
    _bus_pauses: Iterator[float] | None = field(default=None, init=False)
    """The pauses between checks while the bus is missing; None while it exists."""
    _bus_check_denied: bool = field(default=False, init=False)

    def check(self) -> float:
        """Check what is due; returns seconds to wait before the next check, 0 if the worker may receive."""
        if time.monotonic() >= self._next_queue_check:
            self._check_queue()
        if time.monotonic() < self._next_bus_check:
            return 0
        self._next_bus_check = time.monotonic() + EVERY_SECONDS
        try:
            if not self._bus_check_denied:
                self.events.describe_event_bus(Name=self.event_bus)
        except AWS_ERRORS as error:
            return self._not_found(error)
        self._found()
        return 0

    def _found(self) -> None:
        if self._bus_pauses:
            log.info("the event bus %s exists again", self.event_bus)
        self._bus_pauses = None
        self.monitor.blocked("bus", None)

    def _not_found(self, error: Exception) -> float:
        if error_code(error) in NOT_THERE and not self._is_other_account():
            self._bus_pauses = self._bus_pauses or pauses()
            self._block(f"Cannot receive without the event bus: {describe(error)}")
        elif error_code(error) in DENIED:
            log.info("not checking whether the event bus exists: %s", describe(error))
            self._bus_check_denied = True
            self._found()
        else:
            log.warning("cannot check whether the event bus exists: %s", describe(error))
            self._next_bus_check = time.monotonic() + _UNKNOWN_SECONDS
        if self._bus_pauses:
            self._next_bus_check = float("-inf")
        return next(self._bus_pauses) if self._bus_pauses else 0

    def _is_other_account(self) -> bool:
        """Whether the bus belongs to another account than the queue, which may hide it from this one."""
        account = self.event_bus.split(":")[4] if self.event_bus.startswith("arn:") else ""
        return bool(account) and account not in self.queue.url

    def _block(self, why: str) -> None:
        log.error("%s", why)
        self.monitor.blocked("bus", why)
        self.monitor.doing(why)

    def _check_queue(self) -> None:
        """Read the redrive policy: without it the worker cannot announce a job's last receive."""
        try:
            receives = self.queue.max_receives()
        except AWS_ERRORS as error:
            log.warning("cannot read the queue's redrive policy: %s", describe(error))
            self._next_queue_check = time.monotonic() + next(self._queue_pauses)
            return
        self._next_queue_check, self._queue_pauses = time.monotonic() + EVERY_SECONDS, pauses()
        if receives is None:
            return
        if receives == 0 != self.max_receives:
            log.warning(
                "the queue has no dead-letter queue: a job that always fails comes back until it expires"
            )
        self.max_receives = receives
