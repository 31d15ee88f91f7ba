"""When to receive no more: after drawings that failed in a row, or results that AWS refused in a row.

A worker whose GPU broke fails within a second, is free again at once, and so takes most of the queue: beside
healthy ones it would carry job after job to the dead-letter queue.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Literal

from .errors import BadImage, CallRefused

FAILED_JOBS, BAD_PICTURES = 3, 2
"""So many different jobs in a row that could not be drawn, or gave no picture, may be the worker's fault."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 30.0, 900.0
_MARGIN_SECONDS = 2.0  # SQS returns a message on time, and a poll lasts a second at least


def _pause(number: int) -> float:
    """Seconds before try `number`, from 1."""
    return float(min(_FIRST_PAUSE_SECONDS * 2 ** min(number - 1, 10), _LONGEST_PAUSE_SECONDS))


@dataclass
class GenerationBreaker:
    """Jobs that could not be drawn here, with none drawn between."""

    _returns: dict[str, float] = field(default_factory=dict)
    """By job: when its message may be received again, by the monotonic clock."""
    _bad: set[str] = field(default_factory=set)
    _ever: set[str] = field(default_factory=set)
    """All that failed since a job was drawn here, whatever became of the warm-ups meanwhile."""
    _last: str = ""
    _suspicions: int = 0
    _until: float = 0.0

    def succeeded(self) -> None:
        """All is well."""
        self._forget()
        self._ever.clear()
        self._suspicions = 0

    def failed(self, job_id: str, error: Exception, returns_in: float) -> None:
        """A job could not be drawn; its message is back in so many seconds."""
        self._returns[job_id] = time.monotonic() + returns_in
        self._ever.add(job_id)
        self._last = type(error).__name__
        if isinstance(error, BadImage):
            self._bad.add(job_id)

    def suspicion(self) -> str | None:
        """Why the warm-up is to be drawn before anything else is received; None while there is no need.

        Not even one job is failed twice without that: it would lose receives that belong to others.
        """
        if self._many():
            return f"{len(self._returns)} jobs in a row could not be drawn, the last for a {self._last}"
        if self.limit_poll(math.inf) <= 0:
            return f"a job that could not be drawn here, for a {self._last}, is about to come back"
        return None

    def has_failed(self, job_id: str) -> bool:
        """Whether this job could not be drawn here: it came back early, or was sent twice."""
        return job_id in self._returns

    def _many(self) -> bool:
        return len(self._returns) >= FAILED_JOBS or len(self._bad) >= BAD_PICTURES

    def limit_poll(self, seconds: float) -> float:
        """At most so many of these seconds may pass in a poll."""
        first = min(self._returns.values(), default=math.inf)
        return min(seconds, first - _MARGIN_SECONDS - time.monotonic())

    def warm_up_succeeded(self) -> float:
        """The warm-up was good. Gives back the seconds that others have the queue to themselves.

        None the first time; more each time that jobs fail again, where several have, with none drawn between.
        """
        self._suspicions += self._many() or len(self._ever) >= FAILED_JOBS
        pause = _pause(self._suspicions - 1) if self._suspicions > 1 else 0.0
        self._until = time.monotonic() + pause
        self._forget()
        return pause

    def remaining(self) -> float:
        """Seconds until something is to be received again."""
        return max(0.0, self._until - time.monotonic())

    @property
    def kind(self) -> Literal["picture", "drawing"]:
        """What failed."""
        return "picture" if len(self._bad) >= BAD_PICTURES else "drawing"

    def _forget(self) -> None:
        self._returns.clear()
        self._bad.clear()


@dataclass
class RefusalBreaker:
    """Jobs whose results AWS refused, with none taken between.

    One is its own fault, such as a prefix that a bucket policy forbids; the next is more likely the worker's.
    """

    _job: str | None = None
    _pauses: int = 0
    _until: float = 0.0
    why: str = ""
    """What is refused, in words."""

    def accepted(self) -> None:
        """AWS took a result."""
        self._job, self._pauses, self._until = None, 0, 0.0

    def refused(self, job_id: str | None, error: CallRefused) -> float:
        """AWS refused one; gives back for how many seconds nothing is to be received."""
        job = job_id or ""
        if self._pauses or self._job not in (None, job):
            self._pauses += 1
            self._until = time.monotonic() + _pause(self._pauses)
        self._job = job
        self.why = f"{error.call} is refused: {error}"
        return self.remaining()

    def remaining(self) -> float:
        """Seconds until something is to be received again."""
        return max(0.0, self._until - time.monotonic())
