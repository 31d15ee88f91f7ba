"""Renew a job's message and claim while the worker is busy with it."""

from __future__ import annotations

import contextvars
import logging
import threading
from types import TracebackType
from typing import Self

from ..aws.errors import describe
from ..errors import LeaseLost
from .claims import Claim
from .queue import AWS_ERRORS, JobQueue, Message

log = logging.getLogger(__name__)


class MessageLease:
    """Renews a message's visibility timeout, and the claim once there is one, from its own thread.

    It renews every third of the timeout, so that two renewals may fail before the lease is lost.
    """

    def __init__(self, queue: JobQueue, message: Message) -> None:
        self.queue = queue
        self.message = message
        self.claim: Claim | None = None
        self._lost: str | None = None
        self._done = threading.Event()
        context = contextvars.copy_context()  # carries the job's id into the thread's log lines
        self._thread = threading.Thread(
            target=context.run, args=(self._renew_until_stopped,), name="hold", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raise LeaseLost if another worker has, or may have, the job."""
        if self._lost:
            raise LeaseLost(self._lost)
        if self.claim and self.claim.expired():
            raise LeaseLost(
                "the claim could not be renewed in time: another worker may have taken the job over"
            )

    def verify_claim(self) -> None:
        """Make sure that this worker still holds the claim. Raises LeaseLost and botocore's errors."""
        if self.claim:
            self.claim.confirm()

    @property
    def failure_marked(self) -> bool:
        """Whether a failure of the job may be stored."""
        return self.claim is not None and self.claim.marked

    def mark_failure(self) -> bool:
        """Give the claim up and leave the mark of a failure that is about to be stored.

        False if this worker holds no claim. Raises botocore's errors.
        """
        if self.claim is None:
            return False
        self.claim.marked = True
        return self.release()

    def release(self) -> bool:
        """Give the claim up; False if another worker holds it. Raises botocore's errors."""
        held = self.claim is not None and self.claim.release()
        self.claim = None
        return held

    def remove_claim(self) -> bool:
        """Remove the claim of a job that succeeded.

        False if a failure was stored meanwhile: remove that, and call again. Raises botocore's errors.
        """
        if self.claim and not self.claim.remove():
            return False
        self.claim = None
        return True

    def return_to_queue(self, after_seconds: float = 0) -> None:
        """Let another worker have the job, now or after some seconds."""
        self.abandon()
        self.queue.return_message(self.message, after_seconds)

    def abandon(self) -> None:
        """Stop renewing, and give the claim up."""
        self._stop()  # first: a later renewal would hide the message again
        try:
            self.release()
        except AWS_ERRORS as error:
            log.warning("cannot give the claim up, it expires by itself: %s", describe(error))

    def _stop(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _renew_until_stopped(self) -> None:
        while not self._done.wait(self.queue.visibility_seconds / 3):
            self._renew_claim()  # first, so that a dead worker's claim ends before its message comes back
            self._extend_visibility()

    def _renew_claim(self) -> None:
        claim = self.claim
        try:
            if claim:
                claim.renew()
        except LeaseLost as lost:
            self._lost = str(lost)
        except AWS_ERRORS as error:
            log.warning("cannot renew the claim: %s", describe(error))

    def _extend_visibility(self) -> None:
        try:
            extended = self.queue.extend_visibility(self.message)
        except AWS_ERRORS as error:
            log.warning("cannot extend the message's visibility: %s", describe(error))
            return
        if not extended and not self._done.is_set():
            self._lost = "this worker no longer holds the message"
