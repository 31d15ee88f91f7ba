"""The worker's loop: receive, claim, generate, store, announce, delete; in this order no job is lost."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .aws.errors import describe
from .backoff import Backoff
from .breaker import GenerationBreaker, RefusalBreaker
from .encode import encode
from .errors import CallRefused, ClaimHeld, DuplicateId, Interrupted, InvalidJob, LeaseLost, WorkerBroken
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
from .steps import StepCallback

if TYPE_CHECKING:
    from .inference.images import GeneratedImages
    from .inference.model import FluxModel

log = logging.getLogger(__name__)

LONG_POLL_SECONDS = 20  # SQS allows no more
PAUSED_SECONDS = 30
WAITING = "Waiting for jobs"
_WAIT_FOR_CLAIM_SECONDS = 10.0
_RETURNS = Backoff(10)
# Longer than the outbox waits before it tries again: if that succeeds, it deletes the message before anybody
# receives it again.
_REFUSED_RETURNS = Backoff(30)
_REASON_CHARACTERS = 300
_QUOTED_CHARACTERS = 20


@dataclass
class Worker:
    """Serves one queue with one loaded model."""

    model: FluxModel
    queue: JobQueue
    delivery: Delivery
    retry_policy: RetryPolicy
    monitor: Monitor
    stop: StopRequest
    max_receives: int | None = None
    """After so many receives SQS dead-letters a message; 0: never; None: unknown."""
    on_generated: Callable[[], None] = lambda: None
    """Called after each job whose images were generated."""
    generation_breaker: GenerationBreaker = field(default_factory=GenerationBreaker)
    refusal_breaker: RefusalBreaker = field(default_factory=RefusalBreaker)
    prerequisites: Prerequisites | None = None
    """Checks that the event bus exists, and sets `max_receives`."""

    def run(self) -> None:
        """Serve until asked to stop; deliver first what the outbox holds. Raises WorkerBroken."""
        quiet = pauses()
        waiting = WAITING
        with self.stop.deferred(), contextlib.suppress(Interrupted):
            while not self.stop.requested:
                if absent := self._check_prerequisites():
                    self.stop.wait(self.monitor.limit_wait(absent))
                    continue
                if self.delivery.deliver_pending():
                    self._result_accepted()
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
                    self.handle(message)

    def _check_prerequisites(self) -> float:
        """Seconds to wait because the event bus is missing; 0 if the worker may receive."""
        if self.prerequisites is None:
            return 0
        wait = self.prerequisites.check()
        if self.prerequisites.max_receives is not None:
            self.max_receives = self.prerequisites.max_receives
        return wait

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
            raise WorkerBroken(f"{suspicion}, and the warm-up fails, too: {_first_line(error)}") from error
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
        """Process one message; afterwards it is deleted, returned, or held by another worker."""
        if message.lag_seconds is not None:
            self.monitor.lag(message.lag_seconds)
        job_id = id_in(message.body)
        with logs.job_context(job_id), MessageLease(self.queue, message) as lease:
            self._process_message(lease, job_id)

    def _process_message(self, lease: MessageLease, job_id: str | None) -> None:
        """Process the message, and decide what becomes of it if that fails."""
        try:
            self._answer_message(lease)
        except Interrupted as error:
            self._interrupted(lease, job_id, error)
        except LeaseLost as error:
            log.warning("stopped working on the job: %s", error)
            lease.abandon()  # leave the message alone: another worker may hold it
            self.monitor.job("handed_back")
        except CallRefused as error:
            self._set_aside(lease, job_id, error)
        except WorkerBroken as error:
            self.monitor.job("handed_back")
            self._return_to_queue(lease, job_id, 0, f"its worker broke: {error}")
            raise
        except Exception as error:
            back = self._return_delay(lease.message)
            log.exception("the job failed, %s", self._describe_return(lease.message, back))
            told = _without_prompt(_first_line(error), lease.message.body)
            reason = f"it failed {lease.message.receives} times, the last time by {told}"
            self._return_to_queue(lease, job_id, back, reason)
            self.monitor.job("failed")
            if self.model.is_fatal(error):
                raise  # systemd starts a new process

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

    def _result_accepted(self) -> None:
        """AWS accepted a result."""
        self.refusal_breaker.accepted()
        self.monitor.blocked("refusal", None)

    def _return_delay(self, message: Message) -> float:
        """Seconds until the message of a failed job comes back; infinite after its last receive."""
        return math.inf if self._last_receive(message) else _RETURNS.pause(message.receives)

    def _last_receive(self, message: Message) -> bool:
        return bool(self.max_receives) and message.receives >= (self.max_receives or 0)

    def _describe_return(self, message: Message, seconds: float) -> str:
        count = f"received {message.receives} times"
        if self._last_receive(message):
            return f"{count}: it goes to the dead-letter queue now"
        return f"{count}: it comes back in {seconds:.0f} s"

    def _return_to_queue(self, lease: MessageLease, job_id: str | None, seconds: float, reason: str) -> None:
        """Return the message; if this was its last receive, announce that the job is dead-lettered."""
        if self._last_receive(lease.message):
            self.delivery.announce_dead_letter(lease, job_id, reason)
            seconds = 0  # the next receive moves it to the dead-letter queue
        lease.return_to_queue(seconds)

    def _answer_message(self, lease: MessageLease) -> None:
        try:
            job = parse(lease.message.body).seeded()
            self.model.check(job)
            self._process(job, lease)
        except InvalidJob as error:
            log.warning("job refused: %s", error)
            if error.announce and error.job_id is None and self.max_receives:
                # Nobody can find it by its id, so leave it for whoever reads the dead-letter queue.
                self._return_to_queue(lease, None, 0, error.reason)
            else:
                self.delivery.reject(error, lease)
                self._result_accepted()
            self.monitor.job("refused")

    def _process(self, job: Job, lease: MessageLease) -> None:
        """Raises DuplicateId, Interrupted, LeaseLost, CorruptRecord and CallRefused."""
        self.monitor.doing(f"Looking up {job.id}", job=job.id)
        try:
            self._claim(job, lease)
        except ClaimHeld as held:
            log.info("not drawn here: %s", held)
            lease.return_to_queue(math.ceil(held.seconds_left))
            self.monitor.job("handed_back")
            return
        outcome, record = self._record(job, lease)
        self.delivery.finish(lease, job.id)
        self._result_accepted()
        self.monitor.job(outcome)
        done = "done" if outcome == "drawn" else "announced again"
        log.info(done, extra={"facts": {"keys": record.keys, "seconds": record.seconds.draw}})

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
            if held.seconds_left > limit_wait and not self._last_receive(lease.message):
                raise
            self.retry_policy.wait(held.seconds_left, f"Waiting for the claim on {job.id} to end")
            self.retry_policy.call("claiming the job", take, while_stopping=False)

    def _record(self, job: Job, lease: MessageLease) -> tuple[Outcome, Record]:
        """Deliver what the outbox holds, announce what is in S3 already, or generate."""
        if (pending := self.delivery.outbox.get(job.id)) and (record := self._delivered(pending, lease)):
            self._assert_same(record, job)
            return "drawn", record
        if known := self._existing_record(job):
            self._assert_same(known, job)
            self.delivery.announce(known, job)
            return "announced_again", known
        return "drawn", self._generate_and_deliver(job, lease)

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

    def _generate_and_deliver(self, job: Job, lease: MessageLease) -> Record:
        if self.stop.requested:
            raise Interrupted(f"the worker must stop ({self.stop.why})")
        if self.generation_breaker.has_failed(job.id):
            self._check_by_warm_up("a job that failed here was received again")
        log.info("drawing", extra={"facts": job.model_dump(exclude={"id", "prompt", "metadata"})})
        generated = self._generate(job, lease)
        log.info("drawn", extra={"facts": {"seconds": round(generated.seconds, 3)}})
        self.monitor.image(generated.seconds / job.images)
        self.monitor.doing(f"Delivering {job.id}", job=job.id)
        files = encode(generated)
        results = self.delivery.results
        record = Record.of(
            generated,
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
        return self.delivery.deliver(pending, lease, fresh=True)

    def _generate(self, job: Job, lease: MessageLease) -> GeneratedImages:
        try:
            generated = self.model.generate(job, StepCallback(job, lease, self.monitor, self.stop))
        except (Interrupted, LeaseLost):
            raise
        except Exception as error:
            self.generation_breaker.failed(job.id, error, self._return_delay(lease.message))
            raise
        self.generation_breaker.succeeded()
        self.on_generated()
        return generated


def _first_line(error: Exception) -> str:
    """The error's kind and first line; the rest may be pages of compiler output."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_REASON_CHARACTERS]


def _without_prompt(line: str, body: str) -> str:
    """Only the error's kind if its text quotes the prompt, which events must not contain."""
    with contextlib.suppress(InvalidJob):
        if parse(body).prompt[:_QUOTED_CHARACTERS] in line:
            return line.partition(":")[0]
    return line
