"""After each step of a job: report progress, and stop if the job is lost or time runs out."""

from __future__ import annotations

import time

from .errors import Interrupted
from .host.monitor import Monitor
from .host.stop import StopRequest
from .jobs.lease import MessageLease
from .jobspec.job import Job

HAND_OVER_SECONDS = 10.0
"""Time to decode, encode and store the images when AWS is quick; counted as needed before a deadline."""


class StepCallback:
    """Called with the number of steps done over all images of the job; a restarted job counts from 1 again.

    Raises LeaseLost if another worker may have the job, and Interrupted if the remaining steps take longer
    than the worker has left.
    """

    def __init__(self, job: Job, lease: MessageLease, monitor: Monitor, stop: StopRequest) -> None:
        self._job = job
        self._lease = lease
        self._monitor = monitor
        self._stop = stop
        self._began = self._last = time.monotonic()
        self._done = 0

    def __call__(self, done: int) -> None:
        """Step number `done` is finished."""
        now = time.monotonic()
        total = self._job.steps * self._job.images
        if done <= self._done:  # begun again: the time before says nothing about the steps that are left
            self._began = self._last
        self._done = done
        self._report(done, total)
        # An image's first step also contains encoding the prompt or decoding the image before.
        if self._number(done) > 1:
            self._monitor.step(now - self._last)
        self._last = now
        self._lease.check()
        left = (total - done) * (now - self._began) / done + HAND_OVER_SECONDS
        if self._stop.requested and done < total and not self._stop.has_time_for(left):
            raise Interrupted(
                f"the job needs {left:.0f} s more, {self._stop.remaining():.0f} s are left ({self._stop.why})"
            )

    def _number(self, done: int) -> int:
        """Which step of its image this is, from 1."""
        return (done - 1) % self._job.steps + 1

    def _report(self, done: int, total: int) -> None:
        job = self._job
        image = f"image {(done - 1) // job.steps + 1} of {job.images}, " if job.images > 1 else ""
        text = f"Drawing {job.id}: {image}step {self._number(done)} of {job.steps}"
        self._monitor.doing(text, job=job.id, step=done, steps=total)
