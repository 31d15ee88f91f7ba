"""Handing over what was drawn, and saying what can't be: S3, EventBridge, SQS, in that order."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

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
_UNTOLD = "nobody is told that the job goes to the dead-letter queue"
FIRST_ASIDE_SECONDS, LONGEST_ASIDE_SECONDS = 10.0, 900.0
"""Between two tries of a result that AWS refuses."""


@dataclass
class Delivery:
    """Everything that follows a drawing, and everything that answers without one."""

    queue: JobQueue
    results: Results
    claims: Claims
    outbox: Outbox
    retry_policy: RetryPolicy
    _not_before: dict[str, float] = field(default_factory=dict, init=False)
    """By job: when a parcel that could not be delivered is tried again, by the monotonic clock."""
    _refusal_counts: dict[str, int] = field(default_factory=dict, init=False)
    """By job: how often AWS refused its result."""

    def deliver(self, pending: PendingResult, lease: MessageLease, *, fresh: bool = False) -> Record:
        """Store what was drawn and announce it; the record that stands in S3 then, perhaps another worker's.

        `fresh`: drawn just now, after a look for an older record. Raises Interrupted and Refused (the parcel
        stays in the outbox), Lost, IdTaken and RecordBroken.
        """
        record = self.retry_policy.call("storing the images", lambda: self._store(pending, lease, fresh))
        if fields := record.differs(pending.record.job):
            unnamed = set(pending.record.keys) - set(record.keys)
            self.retry_policy.call("removing what no record names", lambda: self.results.remove(unnamed))
            self.outbox.remove(pending.job_id)
            raise duplicate_id(pending.job_id, fields)
        self.announce(record, pending.record.job)
        return record

    def _store(self, pending: PendingResult, lease: MessageLease, fresh: bool) -> Record:
        lease.verify_claim()
        older = None if fresh else self.results.record(pending.job_id)
        return older or self.results.store(pending.record, self._one_by_one(pending))

    def _one_by_one(self, pending: PendingResult) -> Iterator[bytes]:
        """A slow upload is no hung worker, and four of them may take longer than the watchdog waits."""
        for image in pending.images:
            self.retry_policy.ping()
            yield image
        self.retry_policy.ping()

    def announce(self, record: Record, job: Job) -> None:
        """Say where a job's images are, with the metadata of the message that asked.

        Raises Interrupted and Refused, as everything that talks to AWS.
        """
        self.retry_policy.call("announcing", lambda: self.results.announce(record, job.metadata))

    def finish(self, lease: MessageLease, job_id: str) -> None:
        """All is stored and announced: nothing but the record may remain.

        Claim and failure go before the message: whoever receives the message again finds the record, and
        nothing is left behind that nobody would ever remove.
        """
        self._release_claim(lease)
        try:
            self.retry_policy.call(
                "removing what was written about a failure", lambda: self.results.forget_failure(job_id)
            )
        except CallRefused as error:
            log.warning("the worker's role needs s3:DeleteObject: %s", error)
        self.retry_policy.call("deleting the message", lambda: self.queue.delete(lease.message))
        self._forget_job(job_id)

    def _release_claim(self, lease: MessageLease) -> None:
        self.retry_policy.call("removing the claim", lease.release)

    def reject(self, error: InvalidJob, lease: MessageLease) -> None:
        """Say that a job can never be drawn, and why, and delete its message."""
        if error.announce:
            self._announce_failure(error, dead_lettered=False)
        self._release_claim(lease)
        self.retry_policy.call("deleting the message", lambda: self.queue.delete(lease.message))

    def announce_dead_letter(self, lease: MessageLease, job_id: str | None, reason: str) -> None:
        """Say that the job's message goes to the dead-letter queue, unless all but the message is done.

        The claim goes as well: nobody receives the message any more, who would remove it.
        """
        try:
            self._announce_failure(InvalidJob(reason, job_id=job_id), dead_lettered=True)
            self._release_claim(lease)
        except (Interrupted, CallRefused) as error:
            log.error("%s: %s", _UNTOLD, error)

    def _announce_failure(self, error: InvalidJob, *, dead_lettered: bool) -> None:
        key = self.retry_policy.call(
            "writing the failure down",
            lambda: self.results.store_failure(error, dead_lettered=dead_lettered),
        )
        if dead_lettered and error.job_id and not key:
            log.warning("%s: there is a record of its id", _UNTOLD)
            return
        self.retry_policy.call(
            "announcing the failure",
            lambda: self.results.announce_failure(error, key, dead_lettered=dead_lettered),
        )

    def set_aside(self, job_id: str) -> float:
        """Try the job's parcel again later, after a pause that grows; the pause in seconds."""
        tries = self._refusal_counts[job_id] = self._refusal_counts.get(job_id, 0) + 1
        pause = float(min(FIRST_ASIDE_SECONDS * 2 ** min(tries - 1, 10), LONGEST_ASIDE_SECONDS))
        self._not_before[job_id] = time.monotonic() + pause
        return pause

    def _forget_job(self, job_id: str) -> None:
        self.outbox.remove(job_id)
        self._not_before.pop(job_id, None)
        self._refusal_counts.pop(job_id, None)

    def deliver_pending(self) -> int:
        """Deliver what the outbox still holds; the number of parcels delivered. Raises Interrupted.

        What AWS refuses, and a parcel whose job another worker has in hand, is left for later.
        """
        delivered = 0
        for job_id in self.outbox.job_ids():
            if time.monotonic() < self._not_before.get(job_id, 0):
                continue
            self.retry_policy.ping()
            with logs.job_context(job_id):
                pending = self.outbox.get(job_id)
                delivered += bool(pending and self._deliver_one(pending))
        return delivered

    def _deliver_one(self, pending: PendingResult) -> bool:
        def claim() -> None:
            lease.claim = self.claims.take(pending.job_id, pending.claim)

        # The receipt is as old as the parcel. Where it expired, the message comes back to somebody, who
        # finds the record, announces the job again and deletes the message.
        with MessageLease(self.queue, Message("", pending.receipt)) as lease:
            try:
                self.retry_policy.call("claiming the job", claim)
                self.deliver(pending, lease)
                self.finish(lease, pending.job_id)
            except (ClaimHeld, LeaseLost, CorruptRecord, CallRefused) as error:
                wait = self._wait_after(error, pending.job_id)
                lease.abandon()
                log.warning("the outbox keeps the images, and tries again in %.0f s: %s", wait, error)
                return False
            except DuplicateId as error:
                lease.abandon()
                log.error("the images in the outbox are thrown away: %s", error)
                return False
            except (Interrupted, WorkerError):
                raise
            except Exception:  # whatever it is, one job's must not keep all others from being drawn
                log.exception("the outbox keeps the images for %.0f s", self.set_aside(pending.job_id))
                lease.abandon()
                return False
        log.info("delivered from the outbox")
        return True

    def _wait_after(self, error: WorkerError, job_id: str) -> float:
        """Leave the parcel alone for so many seconds, from now on."""
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
    """The refusal of a job whose id stands for another one."""
    reason = f"{', '.join(fields)}: not as in the job that was drawn under this id; choose another id"
    return DuplicateId(reason, job_id=job_id)
