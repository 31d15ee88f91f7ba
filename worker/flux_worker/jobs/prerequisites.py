"""Whether the event bus is there, and what becomes of messages that fail: looked at each hour.

EventBridge has answered with success for buses that do not exist (https://github.com/aws/aws-cli/issues/9186):
what is drawn then, nobody would ever hear of.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..aws.errors import DENIED, NOT_THERE, code_of, described
from ..host.monitor import Monitor
from .queue import AWS_ERRORS, JobQueue
from .retry import pauses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_events import EventBridgeClient

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
_UNKNOWN_SECONDS = 60.0  # after a look that AWS did not answer


@dataclass
class Places:
    """Looks at the places that a worker depends on and that can't be told by its own calls."""

    queue: JobQueue
    events: EventBridgeClient
    event_bus: str
    monitor: Monitor
    max_receives: int | None = field(default=None, init=False)
    """After so many receives a message goes to the dead-letter queue; 0: never; None: not known."""
    _next: float = field(default=float("-inf"), init=False)
    _next_of_queue: float = field(default=float("-inf"), init=False)
    _unanswered: Iterator[float] = field(default_factory=pauses, init=False)
    """The pauses between questions about the queue that AWS does not answer."""
    _absent: Iterator[float] | None = field(default=None, init=False)
    """The pauses between looks while the bus is not there."""
    _denied: bool = field(default=False, init=False)

    def look(self) -> float:
        """Look again where it is time to; the seconds to wait before the next look, 0 where jobs may come."""
        if time.monotonic() >= self._next_of_queue:
            self._look_at_queue()
        if time.monotonic() < self._next:
            return 0
        self._next = time.monotonic() + EVERY_SECONDS
        try:
            if not self._denied:
                self.events.describe_event_bus(Name=self.event_bus)
        except AWS_ERRORS as error:
            return self._not_found(error)
        self._found()
        return 0

    def _found(self) -> None:
        if self._absent:
            log.info("the event bus %s is there", self.event_bus)
        self._absent = None
        self.monitor.blocked("bus", None)

    def _not_found(self, error: Exception) -> float:
        if code_of(error) in NOT_THERE and not self._elsewhere():
            self._absent = self._absent or pauses()
            self._block(f"Cannot receive, since nobody would hear of what is drawn: {described(error)}")
        elif code_of(error) in DENIED:
            log.info("whether the event bus is there is not looked at: %s", described(error))
            self._denied = True
            self._found()
        else:
            log.warning("cannot look whether the event bus is there: %s", described(error))
            self._next = time.monotonic() + _UNKNOWN_SECONDS
        if self._absent:
            self._next = float("-inf")
        return next(self._absent) if self._absent else 0

    def _elsewhere(self) -> bool:
        """Whether the bus is another account's than the queue: an account may keep to itself what it has."""
        account = self.event_bus.split(":")[4] if self.event_bus.startswith("arn:") else ""
        return bool(account) and account not in self.queue.url

    def _block(self, why: str) -> None:
        log.error("%s", why)
        self.monitor.blocked("bus", why)
        self.monitor.doing(why)

    def _look_at_queue(self) -> None:
        """Until it is answered, nobody would be told of a job that is received for the last time."""
        try:
            receives = self.queue.max_receives()
        except AWS_ERRORS as error:
            log.warning("cannot ask for the queue's dead-letter queue: %s", described(error))
            self._next_of_queue = time.monotonic() + next(self._unanswered)
            return
        self._next_of_queue, self._unanswered = time.monotonic() + EVERY_SECONDS, pauses()
        if receives is None:
            return
        if receives == 0 != self.max_receives:
            log.warning(
                "the queue has no dead-letter queue: a job that fails each time comes back until it expires"
            )
        self.max_receives = receives
