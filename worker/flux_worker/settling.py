"""What becomes of a message whose job could not be finished."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .background import Background
from .backoff import Backoff
from .breaker import RefusalBreaker
from .errors import CallRefused, Interrupted, InvalidJob, LeaseLost, WorkerBroken
from .host.monitor import Monitor
from .jobs.delivery import Delivery
from .jobs.lease import MessageLease
from .jobs.queue import Message
from .jobspec.job import parse

log = logging.getLogger(__name__)

_RETURNS = Backoff(10)
# Longer than the outbox waits before it tries again: if that succeeds, it deletes the message before anybody
# receives it again.
_REFUSED_RETURNS = Backoff(30)
_REASON_CHARACTERS = 300
_QUOTED_CHARACTERS = 20


@dataclass
class Settling:
    """Rejects, returns or sets aside what failed; from the main thread, or from the background's task."""

    delivery: Delivery
    monitor: Monitor
    background: Background
    is_fatal: Callable[[Exception], bool]
    """Whether an error means that this process cannot go on."""
    max_receives: int | None = None
    """After so many receives SQS dead-letters a message; 0: never; None: unknown."""
    refusal_breaker: RefusalBreaker = field(default_factory=RefusalBreaker)

    @contextlib.contextmanager
    def settle(self, lease: MessageLease, job_id: str | None) -> Iterator[None]:
        """Decide what becomes of the message if the block fails. Raises WorkerBroken and fatal errors.

        In the main thread it waits for the background first, which may be at the same place.
        """
        try:
            try:
                yield
            except InvalidJob as error:
                self.background.wait()
                self._refuse(lease, error)
        except Exception as error:
            if error is self.background.failure:  # not this job's fault, but the end of this process
                self._interrupted(lease, job_id, Interrupted(f"the worker broke: {error}"))
                raise
            self.background.wait()
            self._settle(lease, job_id, error)

    def _settle(self, lease: MessageLease, job_id: str | None, error: Exception) -> None:
        match error:
            case Interrupted():
                self._interrupted(lease, job_id, error)
            case LeaseLost():
                log.warning("stopped working on the job: %s", error)
                lease.abandon()  # leave the message alone: another worker may hold it
                self.monitor.job("handed_back")
            case CallRefused():
                self._set_aside(lease, job_id, error)
            case WorkerBroken():
                self.monitor.job("handed_back")
                self._return_to_queue(lease, job_id, 0, f"its worker broke: {error}")
                raise error
            case _:
                self._failed(lease, job_id, error)

    def _refuse(self, lease: MessageLease, error: InvalidJob) -> None:
        log.warning("job refused: %s", error)
        if error.announce and error.job_id is None and self.max_receives:
            # Nobody can find it by its id, so leave it for whoever reads the dead-letter queue.
            self._return_to_queue(lease, None, 0, error.reason)
        else:
            self.delivery.reject(error, lease)
            self.result_accepted()
        self.monitor.job("refused")

    def _failed(self, lease: MessageLease, job_id: str | None, error: Exception) -> None:
        back = self.return_delay(lease.message)
        log.error("the job failed, %s", self._describe_return(lease.message, back), exc_info=error)
        told = _without_prompt(first_line(error), lease.message.body)
        reason = f"it failed {lease.message.receives} times, the last time by {told}"
        self._return_to_queue(lease, job_id, back, reason)
        self.monitor.job("failed")
        if self.is_fatal(error):
            raise error  # systemd starts a new process

    def _interrupted(self, lease: MessageLease, job_id: str | None, error: Interrupted) -> None:
        self.monitor.job("handed_back")
        if job_id and self.delivery.outbox.is_on_disk(job_id):
            # AWS did not accept the result, so it would hardly accept this; the message comes back by itself.
            log.warning("not delivered, the images stay in the outbox: %s", error)
        else:
            log.warning("returned to the queue: %s", error)
            self._return_to_queue(lease, job_id, 0, f"no worker had enough time for it: {error}")

    def _set_aside(self, lease: MessageLease, job_id: str | None, error: CallRefused) -> None:
        """AWS refuses this job's calls: keep its images in the outbox and go on with the next job."""
        if job_id in self.delivery.outbox.job_ids():
            assert job_id
            self.delivery.set_aside(job_id)
        back = _REFUSED_RETURNS.pause(lease.message.receives)
        log.error("set aside, %s: %s", self._describe_return(lease.message, back), error)
        self._return_to_queue(lease, job_id, back, f"AWS refuses it, the last time {error.call}")
        self.monitor.job("set_aside")
        if pause := self.refusal_breaker.refused(job_id, error):
            log.error("not receiving for %.0f s, AWS refuses job after job: %s", pause, error)
            self.monitor.breaker_tripped("refusal")
            self.monitor.blocked("refusal", self.refusal_breaker.why)

    def result_accepted(self) -> None:
        """AWS accepted a result."""
        self.refusal_breaker.accepted()
        self.monitor.blocked("refusal", None)

    def return_delay(self, message: Message) -> float:
        """Seconds until the message of a failed job comes back; infinite after its last receive."""
        return math.inf if self.last_receive(message) else _RETURNS.pause(message.receives)

    def last_receive(self, message: Message) -> bool:
        """Whether SQS dead-letters the message if it comes back once more."""
        return bool(self.max_receives) and message.receives >= (self.max_receives or 0)

    def _describe_return(self, message: Message, seconds: float) -> str:
        count = f"received {message.receives} times"
        if self.last_receive(message):
            return f"{count}: it goes to the dead-letter queue now"
        return f"{count}: it comes back in {seconds:.0f} s"

    def _return_to_queue(self, lease: MessageLease, job_id: str | None, seconds: float, reason: str) -> None:
        """Return the message; if this was its last receive, announce that the job is dead-lettered."""
        if self.last_receive(lease.message):
            self.delivery.announce_dead_letter(lease, job_id, reason)
            seconds = 0  # the next receive moves it to the dead-letter queue
        lease.return_to_queue(seconds)


def first_line(error: Exception) -> str:
    """The error's kind and first line; the rest may be pages of compiler output."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_REASON_CHARACTERS]


def _without_prompt(line: str, body: str) -> str:
    """Only the error's kind if its text quotes the prompt, which events must not contain."""
    with contextlib.suppress(InvalidJob):
        if parse(body).prompt[:_QUOTED_CHARACTERS] in line:
            return line.partition(":")[0]
    return line
