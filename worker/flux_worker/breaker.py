"""Circuit breakers: stop receiving after jobs that failed in a row, or results that AWS refused in a row.

A worker with a broken GPU fails within a second and is free again at once, so it would take most of the queue
from healthy workers and move job after job to the dead-letter queue.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Literal

from .backoff import Backoff
from .errors import BadImage, CallRefused

FAILED_JOBS, BAD_PICTURES = 3, 2
"""After so many different jobs in a row failed, or gave no valid image, the worker may be the cause."""
_PAUSES = Backoff(30.0)
_MARGIN_SECONDS = 2.0  # SQS returns a message on time, and a poll takes at least a second


@dataclass
class GenerationBreaker:
    """Counts jobs that failed here since the last success."""

    _returns: dict[str, float] = field(default_factory=dict)
    """By job: the monotonic time at which its message may be received again."""
    _bad: set[str] = field(default_factory=set)
    _ever: set[str] = field(default_factory=set)
    """All jobs that failed since the last success, whatever the warm-ups in between showed."""
    _last: str = ""
    _suspicions: int = 0
    _until: float = 0.0

    def succeeded(self) -> None:
        """A job succeeded: start counting anew."""
        self._forget()
        self._ever.clear()
        self._suspicions = 0

    def failed(self, job_id: str, error: Exception, returns_in: float) -> None:
        """A job failed; its message comes back in `returns_in` seconds."""
        self._returns[job_id] = time.monotonic() + returns_in
        self._ever.add(job_id)
        self._last = type(error).__name__
        if isinstance(error, BadImage):
            self._bad.add(job_id)

    def suspicion(self) -> str | None:
        """Why the warm-up must succeed before the next receive; None if it need not.

        No job fails here twice without a warm-up between: it would use up receives that others need.
        """
        if self._many():
            return f"{len(self._returns)} jobs in a row failed, the last with {self._last}"
        if self.limit_poll(math.inf) <= 0:
            return f"a job that failed here with {self._last} is about to come back"
        return None

    def has_failed(self, job_id: str) -> bool:
        """Whether this job failed here before: it came back early, or was sent twice."""
        return job_id in self._returns

    def _many(self) -> bool:
        return len(self._returns) >= FAILED_JOBS or len(self._bad) >= BAD_PICTURES

    def limit_poll(self, seconds: float) -> float:
        """The part of `seconds` that a poll may take before a failed job comes back."""
        first = min(self._returns.values(), default=math.inf)
        return min(seconds, first - _MARGIN_SECONDS - time.monotonic())

    def warm_up_succeeded(self) -> float:
        """The warm-up succeeded; returns the seconds for which this worker leaves the queue to others.

        0 the first time; longer each time that several jobs fail again without a success between.
        """
        self._suspicions += self._many() or len(self._ever) >= FAILED_JOBS
        pause = _PAUSES.pause(self._suspicions - 1) if self._suspicions > 1 else 0.0
        self._until = time.monotonic() + pause
        self._forget()
        return pause

    def remaining(self) -> float:
        """Seconds until the worker may receive again."""
        return max(0.0, self._until - time.monotonic())

    @property
    def kind(self) -> Literal["picture", "drawing"]:
        """The kind of failure, as the metric names it."""
        return "picture" if len(self._bad) >= BAD_PICTURES else "drawing"

    def _forget(self) -> None:
        self._returns.clear()
        self._bad.clear()


@dataclass
class RefusalBreaker:
    """Counts jobs whose results AWS refused since it last accepted one.

    A single job may be the cause, such as a prefix that a bucket policy forbids; with a second one, it is
    more likely the worker's role.
    """

    _job: str | None = None
    _pauses: int = 0
    _until: float = 0.0
    why: str = ""
    """The refused call and AWS's words."""

    @property
    def suspects(self) -> bool:
        """Whether AWS refused a result since it last accepted one."""
        return self._job is not None

    def accepted(self) -> None:
        """AWS accepted a result."""
        self._job, self._pauses, self._until = None, 0, 0.0

    def refused(self, job_id: str | None, error: CallRefused) -> float:
        """AWS refused a result; returns the seconds for which the worker must not receive."""
        job = job_id or ""
        if self._pauses or self._job not in (None, job):
            self._pauses += 1
            self._until = time.monotonic() + _PAUSES.pause(self._pauses)
        self._job = job
        self.why = f"{error.call} is refused: {error}"
        return self.remaining()

    def remaining(self) -> float:
        """Seconds until the worker may receive again."""
        return max(0.0, self._until - time.monotonic())
