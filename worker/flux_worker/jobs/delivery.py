"""Handing over what was drawn, and saying what can't be: S3, EventBridge, SQS, in that order."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import ClaimHeld, IdTaken, Interrupted, InvalidJob, Lost, RecordBroken, Refused, WorkerError
from ..host import logs
from ..jobspec.job import Job
from .claims import Claims
from .lease import Hold
from .outbox import Outbox, Parcel
from .queue import JobQueue, Message
from .record import Record
from .results import Results
from .retry import Persistence

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
    persistence: Persistence
    _not_before: dict[str, float] = field(default_factory=dict, init=False)
    """By job: when a parcel that could not be delivered is tried again, by the monotonic clock."""
    _refusals: dict[str, int] = field(default_factory=dict, init=False)
    """By job: how often AWS refused its result."""

    def deliver(self, parcel: Parcel, hold: Hold, *, fresh: bool = False) -> Record:
        """Store what was drawn and announce it; the record that stands in S3 then, perhaps another worker's.

        `fresh`: drawn just now, after a look for an older record. Raises Interrupted and Refused (the parcel
        stays in the outbox), Lost, IdTaken and RecordBroken.
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
        """Say where a job's images are, with the metadata of the message that asked.

        Raises Interrupted and Refused, as everything that talks to AWS.
        """
        self.persistence.insist("announcing", lambda: self.results.announce(record, job.metadata))

    def close(self, hold: Hold, job_id: str) -> None:
        """All is stored and announced: nothing but the record may remain.

        Claim and failure go before the message: whoever receives the message again finds the record, and
        nothing is left behind that nobody would ever remove.
        """
        self._let_go(hold)
        try:
            self.persistence.insist(
                "removing what was written about a failure", lambda: self.results.forget_failure(job_id)
            )
        except Refused as error:
            log.warning("the worker's role needs s3:DeleteObject: %s", error)
        self.persistence.insist("deleting the message", lambda: self.queue.delete(hold.message))
        self._gone(job_id)

    def _let_go(self, hold: Hold) -> None:
        self.persistence.insist("removing the claim", hold.release)

    def refuse(self, error: InvalidJob, hold: Hold) -> None:
        """Say that a job can never be drawn, and why, and delete its message."""
        if error.announce:
            self._say_failed(error, dead_lettered=False)
        self._let_go(hold)
        self.persistence.insist("deleting the message", lambda: self.queue.delete(hold.message))

    def announce_dead(self, hold: Hold, job_id: str | None, reason: str) -> None:
        """Say that the job's message goes to the dead-letter queue, unless all but the message is done.

        The claim goes as well: nobody receives the message any more, who would remove it.
        """
        try:
            self._say_failed(InvalidJob(reason, job_id=job_id), dead_lettered=True)
            self._let_go(hold)
        except (Interrupted, Refused) as error:
            log.error("%s: %s", _UNTOLD, error)

    def _say_failed(self, error: InvalidJob, *, dead_lettered: bool) -> None:
        key = self.persistence.insist(
            "writing the failure down",
            lambda: self.results.store_failure(error, dead_lettered=dead_lettered),
        )
        if dead_lettered and error.job_id and not key:
            log.warning("%s: there is a record of its id", _UNTOLD)
            return
        self.persistence.insist(
            "announcing the failure",
            lambda: self.results.announce_failure(error, key, dead_lettered=dead_lettered),
        )

    def set_aside(self, job_id: str) -> float:
        """Try the job's parcel again later, after a pause that grows; the pause in seconds."""
        tries = self._refusals[job_id] = self._refusals.get(job_id, 0) + 1
        pause = float(min(FIRST_ASIDE_SECONDS * 2 ** min(tries - 1, 10), LONGEST_ASIDE_SECONDS))
        self._not_before[job_id] = time.monotonic() + pause
        return pause

    def _gone(self, job_id: str) -> None:
        self.outbox.remove(job_id)
        self._not_before.pop(job_id, None)
        self._refusals.pop(job_id, None)

    def deliver_waiting(self) -> int:
        """Deliver what the outbox still holds; the number of parcels delivered. Raises Interrupted.

        What AWS refuses, and a parcel whose job another worker has in hand, is left for later.
        """
        delivered = 0
        for job_id in self.outbox.waiting():
            if time.monotonic() < self._not_before.get(job_id, 0):
                continue
            self.persistence.alive()
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
            except (ClaimHeld, Lost, RecordBroken, Refused) as error:
                wait = self._wait_after(error, parcel.job_id)
                hold.let_go()
                log.warning("the outbox keeps the images, and tries again in %.0f s: %s", wait, error)
                return False
            except IdTaken as error:
                hold.let_go()
                log.error("the images in the outbox are thrown away: %s", error)
                return False
            except (Interrupted, WorkerError):
                raise
            except Exception:  # whatever it is, one job's must not keep all others from being drawn
                log.exception("the outbox keeps the images for %.0f s", self.set_aside(parcel.job_id))
                hold.let_go()
                return False
        log.info("delivered from the outbox")
        return True

    def _wait_after(self, error: WorkerError, job_id: str) -> float:
        """Leave the parcel alone for so many seconds, from now on."""
        if isinstance(error, Refused):
            return self.set_aside(job_id)
        wait = self.claims.lease_seconds
        if isinstance(error, RecordBroken):
            wait = _BROKEN_RECORD_SECONDS
        elif isinstance(error, ClaimHeld):
            wait = error.seconds_left
        self._not_before[job_id] = time.monotonic() + wait
        return wait


def taken(job_id: str, fields: list[str]) -> IdTaken:
    """The refusal of a job whose id stands for another one."""
    reason = f"{', '.join(fields)}: not as in the job that was drawn under this id; choose another id"
    return IdTaken(reason, job_id=job_id)
