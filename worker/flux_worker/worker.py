"""Job after job: receive, claim, draw, store, announce, delete; in that order, so that none is lost."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .encode import encode
from .errors import ClaimHeld, IdTaken, Interrupted, InvalidJob, Lost
from .host import logs
from .host.monitor import Monitor, Outcome
from .host.stop import Stopped, StopRequest
from .jobs.claims import new_token
from .jobs.delivery import Delivery, taken
from .jobs.hold import Hold
from .jobs.job import Job, id_in, parse
from .jobs.outbox import Parcel
from .jobs.record import Record
from .jobs.retry import Persistence, pauses
from .jobs.sqs import AWS_ERRORS, JobQueue, Message
from .steps import Steps

if TYPE_CHECKING:
    from .inference.model import FluxModel

log = logging.getLogger(__name__)

LONG_POLL_SECONDS = 20  # SQS allows no more
PAUSED_SECONDS = 30
_WAIT_FOR_CLAIM_SECONDS = 10.0
_FIRST_RETURN_SECONDS, _LONGEST_RETURN_SECONDS = 10, 900


@dataclass
class Worker:
    """A loaded model between a queue and the places its results go to."""

    model: FluxModel
    queue: JobQueue
    delivery: Delivery
    persistence: Persistence
    monitor: Monitor
    stop: StopRequest
    max_receives: int | None = None
    """After so many receives a message goes to the dead-letter queue; 0: never; None: not known."""

    def run(self) -> None:
        """Serve until asked to stop; first, what an earlier process left in the outbox."""
        quiet = pauses()
        with self.stop.finish_first(), contextlib.suppress(Interrupted):
            while not self.stop.asked:
                self.delivery.deliver_waiting()
                if self.stop.paused:
                    self.monitor.doing(f"Not receiving: {self.stop.paused}")
                    self.stop.wait(self.monitor.patience(PAUSED_SECONDS))
                    continue
                self.monitor.doing("Waiting for jobs")
                try:
                    message = self._receive()
                    quiet = pauses()
                except AWS_ERRORS as error:
                    pause = self.monitor.patience(next(quiet))
                    log.error("cannot receive jobs, trying again in %.1f s: %s", pause, error)
                    self.stop.wait(pause)
                    continue
                if message:
                    self.handle(message)

    def _receive(self) -> Message | None:
        """A message that there is time for, or None; raises what botocore raises."""
        self.queue.arrived = None
        try:
            with self.stop.interruptible():
                self.queue.receive(int(self.monitor.patience(LONG_POLL_SECONDS)))
        except Stopped:
            log.info("no more jobs are received: %s", self.stop.why or self.stop.paused)
        message = self.queue.arrived
        if message and (self.stop.asked or self.stop.paused):
            self.queue.give_back(message)  # it came in the very instant
            self.monitor.job("handed_back")
            return None
        return message

    def handle(self, message: Message) -> None:
        """See one message through: afterwards it is deleted, given back, or another worker's."""
        if message.lag_seconds is not None:
            self.monitor.lag(message.lag_seconds)
        job_id = id_in(message.body)
        with logs.about(job_id), Hold(self.queue, message) as hold:
            self._see_through(hold, job_id)

    def _see_through(self, hold: Hold, job_id: str | None) -> None:
        """Answer the message, and see what becomes of it where that is not possible."""
        try:
            self._answer(hold)
        except Interrupted as error:
            self.monitor.job("handed_back")
            if job_id and self.delivery.outbox.holds(job_id):
                # AWS did not take it, so it would hardly take this either; the message comes back by itself.
                log.warning("not delivered, the images stay in the outbox: %s", error)
            else:
                log.warning("handed back: %s", error)
                hold.hand_back()
        except Lost as error:
            log.warning("stopped working on the job: %s", error)
            hold.let_go()  # the message is left alone: it may be in another worker's hand
            self.monitor.job("handed_back")
        except Exception as error:
            again = min(
                _FIRST_RETURN_SECONDS * 2 ** min(hold.message.receives - 1, 10), _LONGEST_RETURN_SECONDS
            )
            log.exception("the job failed, %s", self._what_next(hold.message, again))
            hold.hand_back(again)
            self.monitor.job("failed")
            if self.model.broken_by(error):
                raise  # the process is of no more use: systemd starts a new one

    def _what_next(self, message: Message, again: float) -> str:
        count = f"received {message.receives} times"
        if self.max_receives and message.receives >= self.max_receives:
            return f"{count}: it goes to the dead-letter queue after this"
        return f"{count}: it comes back in {again:.0f} s"

    def _answer(self, hold: Hold) -> None:
        try:
            job = parse(hold.message.body).seeded()
            self.model.check(job)
            self._fulfil(job, hold)
        except InvalidJob as error:
            log.warning("job refused: %s", error)
            self.delivery.refuse(error, hold)
            self.monitor.job("refused")

    def _fulfil(self, job: Job, hold: Hold) -> None:
        """Raises IdTaken, Interrupted, Lost, RecordBroken, and whatever drawing raises."""
        self.monitor.doing(f"Looking up {job.id}", job=job.id)
        try:
            self._claim(job, hold)
        except ClaimHeld as held:
            log.info("not drawn here: %s", held)
            hold.hand_back(math.ceil(held.seconds_left))
            self.monitor.job("handed_back")
            return
        outcome, record = self._record(job, hold)
        self.delivery.close(hold, job.id)
        self.monitor.job(outcome)
        done = "done" if outcome == "drawn" else "announced again"
        log.info(done, extra={"facts": {"keys": record.keys, "seconds": record.seconds.draw}})

    def _claim(self, job: Job, hold: Hold) -> None:
        """Raises ClaimHeld, or Interrupted."""
        token = new_token()

        def take() -> None:
            hold.claim = self.delivery.claims.take(job.id, token)

        try:
            self.persistence.insist("claiming the job", take, while_stopping=False)
        except ClaimHeld as held:
            # A worker that lives renews its claim after a third of the lease. This one's ends soon, so it is
            # dead; waiting here costs the message one receive less on its way to the dead-letter queue.
            if held.seconds_left > min(self.delivery.claims.lease_seconds / 2, _WAIT_FOR_CLAIM_SECONDS):
                raise
            self.persistence.pause(held.seconds_left, f"Waiting for the claim on {job.id} to end")
            self.persistence.insist("claiming the job", take, while_stopping=False)

    def _record(self, job: Job, hold: Hold) -> tuple[Outcome, Record]:
        """Deliver what was drawn before, announce what was delivered before, or draw."""
        if (parcel := self.delivery.outbox.find(job.id)) and (record := self._delivered(parcel, hold)):
            self._assert_same(record, job)
            return "drawn", record
        if known := self._known(job):
            self._assert_same(known, job)
            self.delivery.announce(known, job)
            return "announced_again", known
        return "drawn", self._draw_and_deliver(job, hold)

    def _delivered(self, parcel: Parcel, hold: Hold) -> Record | None:
        """The record of what an earlier process drew; None where the id stands for another job by now."""
        try:
            record = self.delivery.deliver(parcel, hold)
        except IdTaken as error:
            log.error("the images in the outbox are thrown away: %s", error)
            return None
        self.delivery.outbox.remove(parcel.job_id)
        return record

    def _known(self, job: Job) -> Record | None:
        return self.persistence.insist(
            "looking for an earlier record",
            lambda: self.delivery.results.record(job.id),
            while_stopping=False,
        )

    def _assert_same(self, record: Record, job: Job) -> None:
        if fields := record.differs(job):
            raise taken(job.id, fields)

    def _draw_and_deliver(self, job: Job, hold: Hold) -> Record:
        if self.stop.asked:
            raise Interrupted(f"the worker has to end ({self.stop.why})")
        log.info("drawing", extra={"facts": job.model_dump(exclude={"id", "prompt", "metadata"})})
        drawing = self.model.draw(job, Steps(job, hold, self.monitor, self.stop))
        log.info("drawn", extra={"facts": {"seconds": round(drawing.seconds, 3)}})
        self.monitor.image(drawing.seconds / job.images)
        self.monitor.doing(f"Handing over {job.id}", job=job.id)
        files = encode(drawing)
        results = self.delivery.results
        record = Record.of(
            drawing,
            files,
            bucket=results.bucket,
            prefix=results.prefix,
            queue_seconds=hold.message.lag_seconds,
        )
        assert hold.claim
        parcel = Parcel(record, tuple(file.data for file in files), hold.message.receipt, hold.claim.token)
        self.delivery.outbox.keep(parcel)
        return self.delivery.deliver(parcel, hold, fresh=True)
