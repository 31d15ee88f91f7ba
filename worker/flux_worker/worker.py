"""The worker's loop: receive, claim, generate, store, announce, delete; in this order no job is lost.

While one job is drawn, the one before is encoded, stored and announced in the background.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from .aws.errors import describe
from .background import Background
from .breaker import GenerationBreaker, RefusalBreaker
from .encode import encode
from .errors import ClaimHeld, DuplicateId, Interrupted, LeaseLost, WorkerBroken
from .host import logs
from .host.monitor import Monitor, Outcome
from .host.stop import Stopped, StopRequest
from .jobs.claims import new_token
from .jobs.delivery import ASIDE_PAUSES, Delivery, duplicate_id
from .jobs.lease import MessageLease
from .jobs.outbox import PendingResult
from .jobs.prerequisites import Prerequisites
from .jobs.queue import AWS_ERRORS, JobQueue, Message
from .jobs.record import Record
from .jobs.retry import RetryPolicy, pauses
from .jobspec.job import Job, id_in, parse
from .settling import Settling, first_line
from .steps import StepCallback

if TYPE_CHECKING:
    from .inference.images import GeneratedImages
    from .inference.model import FluxModel

log = logging.getLogger(__name__)

LONG_POLL_SECONDS = 20  # SQS allows no more
PAUSED_SECONDS = 30
WAITING = "Waiting for jobs"
_WAIT_FOR_CLAIM_SECONDS = 10.0


@dataclass
class Worker:
    """Serves one queue with one loaded model."""

    model: FluxModel
    queue: JobQueue
    delivery: Delivery
    retry_policy: RetryPolicy
    monitor: Monitor
    stop: StopRequest
    background: Background
    max_receives: InitVar[int | None] = None
    """After so many receives SQS dead-letters a message; 0: never; None: unknown."""
    on_generated: Callable[[], None] = lambda: None
    """Called after each job whose images were generated."""
    generation_breaker: GenerationBreaker = field(default_factory=GenerationBreaker)
    prerequisites: Prerequisites | None = None
    """Checks that the event bus exists, and knows the queue's `max_receives`."""
    settling: Settling = field(init=False)

    def __post_init__(self, max_receives: int | None) -> None:
        def is_fatal(error: Exception) -> bool:
            return self.model.is_fatal(error)

        self.settling = Settling(self.delivery, self.monitor, self.background, is_fatal, max_receives)

    @property
    def refusal_breaker(self) -> RefusalBreaker:
        """Counts jobs whose results AWS refused."""
        return self.settling.refusal_breaker

    def run(self) -> None:
        """Serve until asked to stop; deliver first what the outbox holds. Raises WorkerBroken."""
        with self.stop.deferred(), contextlib.suppress(Interrupted):
            try:
                self._serve()
            finally:
                self.background.wait()

    def _serve(self) -> None:
        quiet = pauses()
        waiting = WAITING
        while not self.stop.requested:
            if absent := self._check_prerequisites():
                self.stop.wait(self.monitor.limit_wait(absent))
                continue
            self._deliver_pending()
            if self._pause_if_needed():
                continue
            self.monitor.doing(waiting)
            try:
                # After a failure, poll briefly to see soon whether it is over.
                message = self._receive(LONG_POLL_SECONDS if waiting == WAITING else 1)
                quiet, waiting = pauses(), WAITING
                self.monitor.blocked("receiving", None)
            except AWS_ERRORS as error:
                waiting = f"Cannot receive: {describe(error)}"
                self.monitor.blocked("receiving", waiting)
                self.monitor.doing(waiting)
                pause = self.monitor.limit_wait(next(quiet))
                log.error("%s; trying again in %.1f s", waiting, pause)
                self.stop.wait(pause)
                continue
            if message:
                self._take(message)

    def _check_prerequisites(self) -> float:
        """Seconds to wait because the event bus is missing; 0 if the worker may receive."""
        if self.prerequisites is None:
            return 0
        wait = self.prerequisites.check()
        if self.prerequisites.max_receives is not None:
            self.settling.max_receives = self.prerequisites.max_receives
        return wait

    def _deliver_pending(self) -> None:
        """Deliver what is due of the outbox, besides the job that the background delivers.

        Where AWS did not take the last result, wait for the next one to be taken before another is drawn.
        """
        if self.background.retrying or self.refusal_breaker.suspects:
            self.background.wait()
        if self.delivery.due(besides=self.background.job):
            self.background.wait()
            if self.delivery.deliver_pending():
                self.settling.result_accepted()

    def _pause_if_needed(self) -> bool:
        """Wait for a while if the worker must not receive now; returns whether it did."""
        if suspicion := self.generation_breaker.suspicion():
            self._check_by_warm_up(suspicion)
            return True
        for seconds, why in self._pauses():
            self.monitor.doing(f"Not receiving: {why}")
            self.stop.wait(self.monitor.limit_wait(seconds))
            return True
        self.monitor.blocked("drawing", None)
        return False

    def _pauses(self) -> Iterator[tuple[float, str]]:
        """For how long the worker must not receive, and why."""
        paused = self.stop.paused
        self.monitor.blocked("stop", f"Not receiving: {paused}" if paused else None)
        if paused:
            yield PAUSED_SECONDS, paused
        if remaining := self.generation_breaker.remaining():
            yield remaining, "jobs fail here although the warm-up succeeds: leaving them to other workers"
        if remaining := self.refusal_breaker.remaining():
            yield min(remaining, ASIDE_PAUSES.first), self.refusal_breaker.why

    def _check_by_warm_up(self, suspicion: str) -> None:
        """Generate the warm-up: success means the jobs were at fault. Raises WorkerBroken, Interrupted."""
        log.error("receiving stopped until the warm-up succeeds: %s", suspicion)
        self.monitor.breaker_tripped(self.generation_breaker.kind)
        self.monitor.blocked("drawing", f"Not receiving: {suspicion}")
        self.monitor.doing(f"Drawing the warm-up: {suspicion}")
        try:
            self.model.warm_up(self._warm_up_step)
        except Interrupted:
            raise
        except Exception as error:
            raise WorkerBroken(f"{suspicion}, and the warm-up fails, too: {first_line(error)}") from error
        pause = self.generation_breaker.warm_up_succeeded()
        log.warning("the warm-up succeeded: receiving again in %.0f s", pause)

    def _warm_up_step(self, _done: int) -> None:
        self.monitor.ping()
        if self.stop.requested:
            raise Interrupted(f"the worker must stop ({self.stop.why})")

    def _receive(self, longest: float) -> Message | None:
        """Receive a message, or None if there is none or no time for it. Raises botocore's errors."""
        self.queue.received = None
        seconds = self.generation_breaker.limit_poll(self.monitor.limit_wait(longest))
        try:
            with self.stop.interruptible():
                self.queue.receive(max(1, int(seconds)))
        except Stopped:
            log.info("receiving no more jobs: %s", self.stop.why or self.stop.paused)
        message = self.queue.received
        if message and (self.stop.requested or self.stop.paused):
            self.queue.return_message(message)  # it arrived just before the request to stop
            self.monitor.job("handed_back")
            return None
        return message

    def handle(self, message: Message) -> None:
        """Process one message to its end: it is deleted, returned, or held by another worker."""
        self._take(message)
        self.background.wait()

    def _take(self, message: Message) -> None:
        """Process one message; what is drawn is delivered in the background."""
        if message.lag_seconds is not None:
            self.monitor.lag(message.lag_seconds)
        job_id = id_in(message.body)
        if job_id == self.background.job:
            self.background.wait()  # the same job again: its own claim would be in the way
        with logs.job_context(job_id), contextlib.ExitStack() as held:
            lease = held.enter_context(MessageLease(self.queue, message))
            with self.settling.settle(lease, job_id):
                if drawn := self._answer(lease):
                    self._deliver(drawn, lease, held)

    def _answer(self, lease: MessageLease) -> GeneratedImages | None:
        """Answer a message, or draw its job and return the images, which are still to be delivered."""
        job = parse(lease.message.body).seeded()
        self.model.check(job)
        self.monitor.doing(f"Looking up {job.id}", job=job.id)
        try:
            self._claim(job, lease)
        except ClaimHeld as held:
            log.info("not drawn here: %s", held)
            lease.return_to_queue(math.ceil(held.seconds_left))
            self.monitor.job("handed_back")
            return None
        if found := self._find(job, lease):
            self._finish(lease, *found)
            return None
        return self._draw(job, lease)

    def _claim(self, job: Job, lease: MessageLease) -> None:
        """Raises ClaimHeld, or Interrupted."""
        token = new_token()

        def take() -> None:
            lease.claim = self.delivery.claims.take(job.id, token)

        try:
            self.retry_policy.call("claiming the job", take, while_stopping=False)
        except ClaimHeld as held:
            # A live worker renews its claim after a third of the lease. This claim ends soon: its worker is
            # dead; waiting here saves the message a receive on its way to the dead-letter queue.
            limit_wait = min(self.delivery.claims.lease_seconds / 2, _WAIT_FOR_CLAIM_SECONDS)
            if held.seconds_left > limit_wait and not self.settling.last_receive(lease.message):
                raise
            self.retry_policy.wait(held.seconds_left, f"Waiting for the claim on {job.id} to end")
            self.retry_policy.call("claiming the job", take, while_stopping=False)

    def _find(self, job: Job, lease: MessageLease) -> tuple[Outcome, Record] | None:
        """Deliver what the outbox holds, or announce what is in S3 already; None: it is still to be drawn.

        Raises DuplicateId, Interrupted, LeaseLost, CorruptRecord and CallRefused.
        """
        if pending := self.delivery.outbox.get(job.id):
            self.background.wait()
            if record := self._delivered(pending, lease):
                self._assert_same(record, job)
                return "drawn", record
        if known := self._existing_record(job):
            self.background.wait()
            self._assert_same(known, job)
            self.delivery.announce(known, job)
            return "announced_again", known
        return None

    def _delivered(self, pending: PendingResult, lease: MessageLease) -> Record | None:
        """Deliver an earlier process's result; None if its id belongs to another job by now."""
        try:
            record = self.delivery.deliver(pending, lease)
        except DuplicateId as error:
            log.error("the images in the outbox are discarded: %s", error)
            return None
        self.delivery.outbox.remove(pending.job_id)
        return record

    def _existing_record(self, job: Job) -> Record | None:
        return self.retry_policy.call(
            "looking for an earlier record",
            lambda: self.delivery.results.record(job.id),
            while_stopping=False,
        )

    def _assert_same(self, record: Record, job: Job) -> None:
        if fields := record.differs(job):
            raise duplicate_id(job.id, fields)

    def _draw(self, job: Job, lease: MessageLease) -> GeneratedImages:
        if self.stop.requested:
            raise Interrupted(f"the worker must stop ({self.stop.why})")
        if self.generation_breaker.has_failed(job.id):
            self._check_by_warm_up("a job that failed here was received again")
        log.info("drawing", extra={"facts": job.model_dump(exclude={"id", "prompt", "metadata"})})
        generated = self._generate(job, lease)
        log.info("drawn", extra={"facts": {"seconds": round(generated.seconds, 3)}})
        self.monitor.image(generated.seconds / job.images)
        return generated

    def _generate(self, job: Job, lease: MessageLease) -> GeneratedImages:
        try:
            generated = self.model.generate(job, StepCallback(job, lease, self.monitor, self.stop))
        except (Interrupted, LeaseLost):
            raise
        except Exception as error:
            self.generation_breaker.failed(job.id, error, self.settling.return_delay(lease.message))
            raise
        self.generation_breaker.succeeded()
        self.on_generated()
        return generated

    def _deliver(self, drawn: GeneratedImages, lease: MessageLease, held: contextlib.ExitStack) -> None:
        """Deliver a job's images in the background; `held` ends the lease."""
        # If the job before is not delivered yet, AWS may be out of reach for long: keep these on disk, too.
        packed = self._pack(drawn, lease) if self.background.busy else None
        self.background.wait()
        lasting = held.pop_all()

        def act() -> None:
            with lasting, self.settling.settle(lease, drawn.job.id):
                pending = packed or self._pack(drawn, lease)
                self._finish(lease, "drawn", self.delivery.deliver(pending, lease, fresh=True))

        self.background.submit(drawn.job.id, act)

    def _pack(self, drawn: GeneratedImages, lease: MessageLease) -> PendingResult:
        """Encode images, and write them to the outbox."""
        files = encode(drawn)
        results = self.delivery.results
        record = Record.of(
            drawn,
            files,
            bucket=results.bucket,
            prefix=results.prefix,
            queue_seconds=lease.message.lag_seconds,
        )
        assert lease.claim
        pending = PendingResult(
            record, tuple(file.data for file in files), lease.message.receipt, lease.claim.token
        )
        self.delivery.outbox.add(pending)
        return pending

    def _finish(self, lease: MessageLease, outcome: Outcome, record: Record) -> None:
        """Clean up after a job whose result is stored and announced."""
        self.delivery.finish(lease, record.job.id)
        self.settling.result_accepted()
        self.monitor.job(outcome)
        done = "done" if outcome == "drawn" else "announced again"
        log.info(done, extra={"facts": {"keys": record.keys, "seconds": record.seconds.draw}})
