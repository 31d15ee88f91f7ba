"""Deliver results and announce failures: S3, EventBridge, SQS, in this order."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..backoff import Backoff
from ..errors import (
    CallRefused,
    ClaimHeld,
    CorruptRecord,
    DuplicateId,
    Interrupted,
    InvalidJob,
    LeaseLost,
    WorkerError,
)
from ..host import logs
from ..jobspec.job import Job
from .claims import Claims
from .lease import MessageLease
from .outbox import Outbox, PendingResult
from .queue import JobQueue, Message
from .record import Record
from .results import Results
from .retry import RetryPolicy

log = logging.getLogger(__name__)

_BROKEN_RECORD_SECONDS = 300.0
_UNTOLD = "not announced that the job goes to the dead-letter queue"
ASIDE_PAUSES = Backoff(10.0)
"""Between two tries to deliver a result that AWS refuses."""


@dataclass
class Delivery:
    """What happens to a job's message, claim and results after, or instead of, generating its images."""

    queue: JobQueue
    results: Results
    claims: Claims
    outbox: Outbox
    retry_policy: RetryPolicy
    _not_before: dict[str, float] = field(default_factory=dict, init=False)
    """By job: the monotonic time of the next try to deliver its result."""
    _refusal_counts: dict[str, int] = field(default_factory=dict, init=False)
    """By job: how often AWS refused its result."""

    def deliver(self, pending: PendingResult, lease: MessageLease, *, fresh: bool = False) -> Record:
        """Store and announce a result; returns the record in S3, which may be another worker's.

        `fresh`: there was no older record just now. Raises Interrupted and CallRefused (the result stays in
        the outbox), LeaseLost, DuplicateId and CorruptRecord.
        """
        record = self.retry_policy.call("storing the images", lambda: self._store(pending, lease, fresh))
        if fields := record.differs(pending.record.job):
            unnamed = set(pending.record.keys) - set(record.keys)
            self.retry_policy.call("removing images without a record", lambda: self.results.remove(unnamed))
            self.outbox.remove(pending.job_id)
            raise duplicate_id(pending.job_id, fields)
        self.announce(record, pending.record.job)
        return record

    def _store(self, pending: PendingResult, lease: MessageLease, fresh: bool) -> Record:
        lease.verify_claim()
        older = None if fresh else self.results.record(pending.job_id)
        return older or self.results.store(pending.record, self._one_by_one(pending))

    def _one_by_one(self, pending: PendingResult) -> Iterator[bytes]:
        """The images, with a ping before each: four slow uploads may take longer than the watchdog waits."""
        for image in pending.images:
            self.retry_policy.ping()
            yield image
        self.retry_policy.ping()

    def announce(self, record: Record, job: Job) -> None:
        """Announce a job's images, with the metadata of its message.

        Raises Interrupted and CallRefused, as everything here that calls AWS.
        """
        self.retry_policy.call("announcing", lambda: self.results.announce(record, job.metadata))

    def finish(self, lease: MessageLease, job_id: str) -> None:
        """Clean up after a job whose result is stored and announced.

        Remove the failure, if one may be stored, before the claim that is marked with it, and both before
        the message: if that comes back, its receiver finds the record, and nothing is left that nobody would
        remove.
        """
        marked = lease.failure_marked
        while marked or not self.retry_policy.call("removing the claim", lease.remove_claim):
            self._forget_failure(job_id)
            marked = False
        self.retry_policy.call("deleting the message", lambda: self.queue.delete(lease.message))
        self._forget_job(job_id)

    def _forget_failure(self, job_id: str) -> None:
        try:
            self.retry_policy.call("removing the stored failure", lambda: self.results.forget_failure(job_id))
        except CallRefused as error:
            log.warning("the worker's role needs s3:DeleteObject: %s", error)

    def _release_claim(self, lease: MessageLease) -> None:
        self.retry_policy.call("giving the claim up", lease.release)

    def reject(self, error: InvalidJob, lease: MessageLease) -> None:
        """Announce that a job can never run, and delete its message."""
        if error.announce:
            self._announce_failure(error, lease, dead_lettered=False)
        self._release_claim(lease)
        self.retry_policy.call("deleting the message", lambda: self.queue.delete(lease.message))

    def announce_dead_letter(self, lease: MessageLease, job_id: str | None, reason: str) -> None:
        """Announce that the job is dead-lettered, unless its record exists.

        Remove the claim as well, since nobody will receive the message again.
        """
        try:
            self._announce_failure(InvalidJob(reason, job_id=job_id), lease, dead_lettered=True)
            self._release_claim(lease)
        except (Interrupted, CallRefused) as error:
            log.error("%s: %s", _UNTOLD, error)

    def _announce_failure(self, error: InvalidJob, lease: MessageLease, *, dead_lettered: bool) -> None:
        key = self.retry_policy.call(
            "storing the failure", lambda: self._store_failure(error, lease, dead_lettered)
        )
        if dead_lettered and error.job_id and not key:
            log.warning("%s: its id has a record", _UNTOLD)
            return
        self.retry_policy.call(
            "announcing the failure",
            lambda: self.results.announce_failure(error, key, dead_lettered=dead_lettered),
        )

    def _store_failure(self, error: InvalidJob, lease: MessageLease, dead_lettered: bool) -> str | None:
        """Store why a job failed; returns the key, or None if the id is unusable or has a record."""
        job_id = error.job_id
        if job_id is None:
            return None
        if self.results.recorded(job_id):
            self._forget_failure(job_id)  # of an earlier try, whose worker died before it looked again
            return None
        if not lease.mark_failure():
            self.claims.mark(job_id)
        key = self.results.store_failure(job_id, error.reason, dead_lettered=dead_lettered)
        if self.results.recorded(job_id):  # meanwhile, by a worker that looked before the failure was there
            self._forget_failure(job_id)
            self.claims.unmark(job_id)
            return None
        return key

    def set_aside(self, job_id: str) -> float:
        """Put off the delivery of the job's result; returns the pause in seconds, which doubles each time."""
        tries = self._refusal_counts[job_id] = self._refusal_counts.get(job_id, 0) + 1
        pause = ASIDE_PAUSES.pause(tries)
        self._not_before[job_id] = time.monotonic() + pause
        return pause

    def _forget_job(self, job_id: str) -> None:
        self.outbox.remove(job_id)
        self._not_before.pop(job_id, None)
        self._refusal_counts.pop(job_id, None)

    def due(self, *, besides: str | None) -> bool:
        """Whether the outbox holds a result that may be delivered now, besides that of one job."""
        return any(job_id != besides and self._is_due(job_id) for job_id in self.outbox.job_ids())

    def _is_due(self, job_id: str) -> bool:
        return time.monotonic() >= self._not_before.get(job_id, 0)

    def deliver_pending(self) -> int:
        """Deliver what the outbox holds; returns the number of results delivered. Raises Interrupted.

        Results that AWS refuses, and those of jobs that another worker holds, stay for later.
        """
        delivered = 0
        for job_id in self.outbox.job_ids():
            if not self._is_due(job_id):
                continue
            self.retry_policy.ping()
            with logs.job_context(job_id):
                pending = self.outbox.get(job_id)
                delivered += bool(pending and self._deliver_one(pending))
        return delivered

    def _deliver_one(self, pending: PendingResult) -> bool:
        def claim() -> None:
            lease.claim = self.claims.take(pending.job_id, pending.claim)

        # The receipt is as old as the result. If it expired, a worker receives the message again, finds the
        # record, announces the job again and deletes the message.
        with MessageLease(self.queue, Message("", pending.receipt)) as lease:
            try:
                self.retry_policy.call("claiming the job", claim)
                self.deliver(pending, lease)
                self.finish(lease, pending.job_id)
            except (ClaimHeld, LeaseLost, CorruptRecord, CallRefused) as error:
                wait = self._wait_after(error, pending.job_id)
                lease.abandon()
                log.warning("the images stay in the outbox, next try in %.0f s: %s", wait, error)
                return False
            except DuplicateId as error:
                lease.abandon()
                log.error("the images in the outbox are discarded: %s", error)
                return False
            except (Interrupted, WorkerError):
                raise
            except Exception:  # one job's unknown error must not block all others
                log.exception("the images stay in the outbox for %.0f s", self.set_aside(pending.job_id))
                lease.abandon()
                return False
        log.info("delivered from the outbox")
        return True

    def _wait_after(self, error: WorkerError, job_id: str) -> float:
        """Put off the next try, as the error asks for; returns the seconds."""
        if isinstance(error, CallRefused):
            return self.set_aside(job_id)
        wait = self.claims.lease_seconds
        if isinstance(error, CorruptRecord):
            wait = _BROKEN_RECORD_SECONDS
        elif isinstance(error, ClaimHeld):
            wait = error.seconds_left
        self._not_before[job_id] = time.monotonic() + wait
        return wait


def duplicate_id(job_id: str, fields: list[str]) -> DuplicateId:
    """The error for a job whose id belongs to another one."""
    reason = f"{', '.join(fields)}: differs from the finished job of this id; choose another id"
    return DuplicateId(reason, job_id=job_id)
