"""Handing over what was drawn, and saying what can't be: S3, EventBridge, SQS, in that order."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import ClaimHeld, IdTaken, InvalidJob, Lost, RecordBroken, WorkerError
from ..host import logs
from .claims import Claims
from .hold import Hold
from .job import Job
from .outbox import Outbox, Parcel
from .record import Record
from .results import Results
from .retry import PASSING, Persistence
from .sqs import JobQueue, Message

log = logging.getLogger(__name__)

_BROKEN_RECORD_SECONDS = 300.0


@dataclass
class Delivery:
    """Everything that follows a drawing, and everything that answers without one."""

    queue: JobQueue
    results: Results
    claims: Claims
    outbox: Outbox
    persistence: Persistence
    _not_before: dict[str, float] = field(default_factory=dict, init=False)
    """By job: when a parcel that could not be delivered is tried again, by the monotonic clock."""

    def deliver(self, parcel: Parcel, hold: Hold, *, fresh: bool = False) -> Record:
        """Store what was drawn and announce it; the record that stands in S3 then, perhaps another worker's.

        `fresh`: drawn just now, after a look for an older record. Raises Interrupted (the parcel stays in the
        outbox), Lost, IdTaken and RecordBroken.
        """
        record = self.persistence.insist("storing the images", lambda: self._store(parcel, hold, fresh))
        if fields := record.differs(parcel.record.job):
            unnamed = set(parcel.record.keys) - set(record.keys)
            self.persistence.insist("removing what no record names", lambda: self.results.remove(unnamed))
            self.outbox.remove(parcel.job_id)
            raise taken(parcel.job_id, fields)
        self.announce(record, parcel.record.job)
        return record

    def _store(self, parcel: Parcel, hold: Hold, fresh: bool) -> Record:
        hold.prove()
        older = None if fresh else self.results.record(parcel.job_id)
        return older or self.results.store(parcel.record, self._one_by_one(parcel))

    def _one_by_one(self, parcel: Parcel) -> Iterator[bytes]:
        """A slow upload is no hung worker, and four of them may take longer than the watchdog waits."""
        for image in parcel.images:
            self.persistence.alive()
            yield image
        self.persistence.alive()

    def announce(self, record: Record, job: Job) -> None:
        """Say where a job's images are, with the metadata of the message that asked. Raises Interrupted."""
        self.persistence.insist("announcing", lambda: self.results.announce(record, job.metadata))

    def close(self, hold: Hold, job_id: str) -> None:
        """All is stored and announced: nothing but the record may remain. Raises Interrupted.

        The claim goes before the message: whoever receives the message finds the record, and no claim is
        left behind that nobody would ever remove.
        """
        self._let_go(hold)
        self.persistence.insist("deleting the message", lambda: self.queue.delete(hold.message))
        self.outbox.remove(job_id)
        try:
            self.results.forget_failure(job_id)
        except PASSING as error:
            log.warning("cannot remove what was written about an earlier failure: %s", error)

    def _let_go(self, hold: Hold) -> None:
        self.persistence.insist("removing the claim", hold.release)

    def refuse(self, error: InvalidJob, hold: Hold) -> None:
        """Say that a job can never be drawn, and why, and delete its message. Raises Interrupted."""
        key = self.persistence.insist("writing the refusal down", lambda: self.results.store_failure(error))
        self.persistence.insist("announcing the refusal", lambda: self.results.announce_failure(error, key))
        self._let_go(hold)
        self.persistence.insist("deleting the message", lambda: self.queue.delete(hold.message))

    def deliver_waiting(self) -> int:
        """Deliver what the outbox still holds; the number of parcels delivered. Raises Interrupted.

        A parcel whose job another worker has in hand is left for later: that worker may finish it.
        """
        delivered = 0
        for job_id in self.outbox.waiting():
            if time.monotonic() < self._not_before.get(job_id, 0):
                continue
            with logs.about(job_id):
                parcel = self.outbox.find(job_id)
                delivered += bool(parcel and self._deliver_waiting(parcel))
        return delivered

    def _deliver_waiting(self, parcel: Parcel) -> bool:
        def claim() -> None:
            hold.claim = self.claims.take(parcel.job_id, parcel.claim)

        # The receipt is as old as the parcel. Where it expired, the message comes back to somebody, who
        # finds the record, announces the job again and deletes the message.
        with Hold(self.queue, Message("", parcel.receipt)) as hold:
            try:
                self.persistence.insist("claiming the job", claim)
                self.deliver(parcel, hold)
                self.close(hold, parcel.job_id)
            except (ClaimHeld, Lost, RecordBroken) as error:
                wait = self._patience_with(error)
                self._not_before[parcel.job_id] = time.monotonic() + wait
                self._let_go(hold)
                log.warning("the outbox keeps the images, and tries again in %.0f s: %s", wait, error)
                return False
            except IdTaken as error:
                self._let_go(hold)
                log.error("the images in the outbox are thrown away: %s", error)
                return False
        log.info("delivered from the outbox")
        return True

    def _patience_with(self, error: WorkerError) -> float:
        if isinstance(error, RecordBroken):
            return _BROKEN_RECORD_SECONDS
        return error.seconds_left if isinstance(error, ClaimHeld) else self.claims.lease_seconds


def taken(job_id: str, fields: list[str]) -> IdTaken:
    """The refusal of a job whose id stands for another one."""
    reason = f"{', '.join(fields)}: not as in the job that was drawn under this id; choose another id"
    return IdTaken(reason, job_id=job_id)
