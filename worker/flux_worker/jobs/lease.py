"""Holding a job while it is worked on: its message stays hidden, its claim stays alive."""

from __future__ import annotations

import contextvars
import logging
import threading
from types import TracebackType
from typing import Self

from ..aws.errors import described
from ..errors import Lost
from .claims import Claim
from .queue import AWS_ERRORS, JobQueue, Message

log = logging.getLogger(__name__)


class Hold:
    """Renews a message's visibility, and a claim once there is one, from a thread of its own.

    Every third of the visibility, so that two signs of life may fail before anything is lost.
    """

    def __init__(self, queue: JobQueue, message: Message) -> None:
        self.queue = queue
        self.message = message
        self.claim: Claim | None = None
        self._lost: str | None = None
        self._done = threading.Event()
        context = contextvars.copy_context()  # carries the job's id into the thread's log lines
        self._thread = threading.Thread(target=context.run, args=(self._keep,), name="hold", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raise Lost where the job is, or may be, another worker's by now."""
        if self._lost:
            raise Lost(self._lost)
        if self.claim and self.claim.expired():
            raise Lost("the claim could not be renewed in time: another worker may have taken the job over")

    def prove(self) -> None:
        """Make sure that the claim is still this worker's. Raises Lost, and botocore's errors."""
        if self.claim:
            self.claim.renew()

    def release(self) -> None:
        """Give the claim up. Raises botocore's errors."""
        if self.claim:
            self.claim.release()
            self.claim = None

    def hand_back(self, after_seconds: float = 0) -> None:
        """Let another worker have the job, at once or later."""
        self.let_go()
        self.queue.give_back(self.message, after_seconds)

    def let_go(self) -> None:
        """Work on the job no more: nothing is renewed, and no claim of this worker's is left behind."""
        self._stop()  # first: a visibility that is extended afterwards would hide the message again
        try:
            self.release()
        except AWS_ERRORS as error:
            log.warning("cannot remove the claim, it ends by itself: %s", described(error))

    def _stop(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._done.wait(self.queue.visibility_seconds / 3):
            self._renew_claim()  # first, so that it has ended when a dead worker's message comes back
            self._hide_message()

    def _renew_claim(self) -> None:
        claim = self.claim
        try:
            if claim:
                claim.renew()
        except Lost as lost:
            self._lost = str(lost)
        except AWS_ERRORS as error:
            log.warning("cannot renew the claim: %s", described(error))

    def _hide_message(self) -> None:
        try:
            kept = self.queue.keep(self.message)
        except AWS_ERRORS as error:
            log.warning("cannot extend the message's visibility: %s", described(error))
            return
        if not kept and not self._done.is_set():
            self._lost = "the message is no longer this worker's"
