"""What happens after each step of a drawing: a sign of life, and a look whether going on makes sense."""

from __future__ import annotations

import time

from .errors import Interrupted
from .host.monitor import Monitor
from .host.stop import StopRequest
from .jobs.lease import Hold
from .jobspec.job import Job

HAND_OVER_SECONDS = 10.0
"""Decoding, encoding and storing what was drawn, when AWS is quick; counted in where the end is near."""


class Steps:
    """Called with the number of steps done, over all images of the job; from 1 again where it is begun again.

    Raises Lost where the job is another worker's by now, and Interrupted where what is left of it does not
    fit into the time that the worker has left.
    """

    def __init__(self, job: Job, hold: Hold, monitor: Monitor, stop: StopRequest) -> None:
        self._job = job
        self._hold = hold
        self._monitor = monitor
        self._stop = stop
        self._began = self._last = time.monotonic()
        self._done = 0

    def __call__(self, done: int) -> None:
        """Step number `done` is drawn."""
        now = time.monotonic()
        total = self._job.steps * self._job.images
        if done <= self._done:  # what was drawn before is lost, and its time says nothing of what is left
            self._began = self._last
        self._done = done
        self._tell(done, total)
        # Before an image's first step, the text is encoded, or the image before it decoded.
        if self._number(done) > 1:
            self._monitor.step(now - self._last)
        self._last = now
        self._hold.check()
        left = (total - done) * (now - self._began) / done + HAND_OVER_SECONDS
        if self._stop.asked and done < total and not self._stop.allows(left):
            raise Interrupted(
                f"{left:.0f} s more are needed, {self._stop.remaining():.0f} s are left ({self._stop.why})"
            )

    def _number(self, done: int) -> int:
        """Which step of its image this is, from 1."""
        return (done - 1) % self._job.steps + 1

    def _tell(self, done: int, total: int) -> None:
        job = self._job
        image = f"image {(done - 1) // job.steps + 1} of {job.images}, " if job.images > 1 else ""
        text = f"Drawing {job.id}: {image}step {self._number(done)} of {job.steps}"
        self._monitor.doing(text, job=job.id, step=done, steps=total)
