"""Job after job: receive, claim, draw, store, announce, delete; in that order, so that none is lost."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .aws.errors import described
from .breaker import Drawings, Refusals
from .encode import encode
from .errors import ClaimHeld, IdTaken, Interrupted, InvalidJob, Lost, Refused, Sick
from .host import logs
from .host.monitor import Monitor, Outcome
from .host.stop import Stopped, StopRequest
from .jobs.claims import new_token
from .jobs.delivery import FIRST_ASIDE_SECONDS, Delivery, taken
from .jobs.lease import Hold
from .jobs.outbox import Parcel
from .jobs.prerequisites import Places
from .jobs.queue import AWS_ERRORS, JobQueue, Message
from .jobs.record import Record
from .jobs.retry import Persistence, pauses
from .jobspec.job import Job, id_in, parse
from .steps import Steps

if TYPE_CHECKING:
    from .inference.images import Drawing
    from .inference.model import FluxModel

log = logging.getLogger(__name__)

LONG_POLL_SECONDS = 20  # SQS allows no more
PAUSED_SECONDS = 30
WAITING = "Waiting for jobs"
_WAIT_FOR_CLAIM_SECONDS = 10.0
_FIRST_RETURN_SECONDS, _LONGEST_RETURN_SECONDS = 10, 900
# After a refusal the message stays away for longer than the outbox takes to try again: where that helps, the
# message is deleted before anybody receives it.
_FIRST_REFUSED_SECONDS = 30
_REASON_CHARACTERS = 300
_QUOTED_CHARACTERS = 20


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
    on_drawn: Callable[[], None] = lambda: None
    """Called after each drawing that went well."""
    drawings: Drawings = field(default_factory=Drawings)
    refusals: Refusals = field(default_factory=Refusals)
    places: Places | None = None
    """Tells whether somebody would hear of what is drawn, and `max_receives` from then on."""

    def run(self) -> None:
        """Serve until asked to stop; first, what an earlier process left in the outbox. Raises Sick."""
        quiet = pauses()
        waiting = WAITING
        with self.stop.finish_first(), contextlib.suppress(Interrupted):
            while not self.stop.asked:
                if absent := self._look_at_places():
                    self.stop.wait(self.monitor.patience(absent))
                    continue
                if self.delivery.deliver_waiting():
                    self._taken()
                if self._keeps_off():
                    continue
                self.monitor.doing(waiting)
                try:
                    # After a failure it is soon to be seen whether it is over.
                    message = self._receive(LONG_POLL_SECONDS if waiting == WAITING else 1)
                    quiet, waiting = pauses(), WAITING
                    self.monitor.blocked("receiving", None)
                except AWS_ERRORS as error:
                    waiting = f"Cannot receive: {described(error)}"
                    self.monitor.blocked("receiving", waiting)
                    self.monitor.doing(waiting)
                    pause = self.monitor.patience(next(quiet))
                    log.error("%s; trying again in %.1f s", waiting, pause)
                    self.stop.wait(pause)
                    continue
                if message:
                    self.handle(message)

    def _look_at_places(self) -> float:
        """The seconds to wait where nobody would hear of what is drawn; 0 where jobs may come."""
        if self.places is None:
            return 0
        wait = self.places.look()
        if self.places.max_receives is not None:
            self.max_receives = self.places.max_receives
        return wait

    def _keeps_off(self) -> bool:
        """Whether nothing is to be received now; then some time has passed already, with a sign of life."""
        if doubt := self.drawings.doubt():
            self._prove(doubt)
            return True
        for seconds, why in self._pauses():
            self.monitor.doing(f"Not receiving: {why}")
            self.stop.wait(self.monitor.patience(seconds))
            return True
        self.monitor.blocked("drawing", None)
        return False

    def _pauses(self) -> Iterator[tuple[float, str]]:
        """For how long nothing is to be received, and why."""
        if self.stop.paused:
            self.monitor.blocked("stop", f"Not receiving: {self.stop.paused}")
            yield PAUSED_SECONDS, self.stop.paused
        if left := self.drawings.left():
            yield left, "jobs fail here, although the warm-up is good: other workers come first"
        if left := self.refusals.left():
            yield min(left, FIRST_ASIDE_SECONDS), self.refusals.why

    def _prove(self, doubt: str) -> None:
        """Draw the warm-up: where that works, the jobs were at fault. Raises Sick, and Interrupted."""
        log.error("nothing is received before the warm-up is drawn: %s", doubt)
        self.monitor.tripped(self.drawings.kind)
        self.monitor.blocked("drawing", f"Not receiving: {doubt}")
        self.monitor.doing(f"Drawing the warm-up: {doubt}")
        try:
            self.model.warm_up(self._warm_up_step)
        except Interrupted:
            raise
        except Exception as error:
            raise Sick(f"{doubt}, and the warm-up cannot be drawn any more: {_first_line(error)}") from error
        pause = self.drawings.proven()
        log.warning("the warm-up is good: jobs are received again in %.0f s", pause)

    def _warm_up_step(self, _done: int) -> None:
        self.monitor.ping()
        if self.stop.asked:
            raise Interrupted(f"the worker has to end ({self.stop.why})")

    def _receive(self, longest: float) -> Message | None:
        """A message that there is time for, or None; raises what botocore raises."""
        self.queue.arrived = None
        seconds = self.drawings.until_return(self.monitor.patience(longest))
        try:
            with self.stop.interruptible():
                self.queue.receive(max(1, int(seconds)))
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
            self._interrupted(hold, job_id, error)
        except Lost as error:
            log.warning("stopped working on the job: %s", error)
            hold.let_go()  # the message is left alone: it may be in another worker's hand
            self.monitor.job("handed_back")
        except Refused as error:
            self._set_aside(hold, job_id, error)
        except Sick as error:
            self.monitor.job("handed_back")
            self._hand_back(hold, job_id, 0, f"the worker that had it could draw no more: {error}")
            raise
        except Exception as error:
            back = self._return_seconds(hold.message)
            log.exception("the job failed, %s", self._what_next(hold.message, back))
            told = _without_prompt(_first_line(error), hold.message.body)
            reason = f"it failed {hold.message.receives} times, the last time by {told}"
            self._hand_back(hold, job_id, back, reason)
            self.monitor.job("failed")
            if self.model.broken_by(error):
                raise  # the process is of no more use: systemd starts a new one

    def _interrupted(self, hold: Hold, job_id: str | None, error: Interrupted) -> None:
        self.monitor.job("handed_back")
        if job_id and self.delivery.outbox.holds(job_id):
            # AWS did not take it, so it would hardly take this either; the message comes back by itself.
            log.warning("not delivered, the images stay in the outbox: %s", error)
        else:
            log.warning("handed back: %s", error)
            self._hand_back(hold, job_id, 0, f"no worker had the time to draw it: {error}")

    def _set_aside(self, hold: Hold, job_id: str | None, error: Refused) -> None:
        """AWS refuses this job's calls: the next one is tried, and what was drawn stays in the outbox."""
        if job_id in self.delivery.outbox.waiting():
            assert job_id
            self.delivery.set_aside(job_id)
        back = _doubled(_FIRST_REFUSED_SECONDS, hold.message)
        log.error("set aside, %s: %s", self._what_next(hold.message, back), error)
        self._hand_back(hold, job_id, back, f"AWS refuses it, the last time {error.call}")
        self.monitor.job("set_aside")
        if pause := self.refusals.refused(job_id, error):
            log.error("nothing is received for %.0f s: AWS refuses job after job: %s", pause, error)
            self.monitor.tripped("refusal")
            self.monitor.blocked("refusal", self.refusals.why)

    def _taken(self) -> None:
        """AWS took a result."""
        self.refusals.taken()
        self.monitor.blocked("refusal", None)

    def _return_seconds(self, message: Message) -> float:
        """After how long a message comes back whose job failed; never where this was its last receive."""
        return math.inf if self._last_receive(message) else _doubled(_FIRST_RETURN_SECONDS, message)

    def _last_receive(self, message: Message) -> bool:
        return bool(self.max_receives) and message.receives >= (self.max_receives or 0)

    def _what_next(self, message: Message, seconds: float) -> str:
        count = f"received {message.receives} times"
        if self._last_receive(message):
            return f"{count}: it goes to the dead-letter queue after this"
        return f"{count}: it comes back in {seconds:.0f} s"

    def _hand_back(self, hold: Hold, job_id: str | None, seconds: float, reason: str) -> None:
        """Let the message come back; where it was received for the last time, its job's end is announced."""
        if self._last_receive(hold.message):
            self.delivery.announce_dead(hold, job_id, reason)
            seconds = 0  # the next receive moves it to the dead-letter queue
        hold.hand_back(seconds)

    def _answer(self, hold: Hold) -> None:
        try:
            job = parse(hold.message.body).seeded()
            self.model.check(job)
            self._fulfil(job, hold)
        except InvalidJob as error:
            log.warning("job refused: %s", error)
            if error.announce and error.job_id is None and self.max_receives:
                # Nobody could ask for it by its id: it is kept for whoever looks at the dead-letter queue.
                self._hand_back(hold, None, 0, error.reason)
            else:
                self.delivery.refuse(error, hold)
                self._taken()
            self.monitor.job("refused")

    def _fulfil(self, job: Job, hold: Hold) -> None:
        """Raises IdTaken, Interrupted, Lost, RecordBroken, Refused, and whatever drawing raises."""
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
        self._taken()
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
            patience = min(self.delivery.claims.lease_seconds / 2, _WAIT_FOR_CLAIM_SECONDS)
            if held.seconds_left > patience and not self._last_receive(hold.message):
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
        if self.drawings.knows(job.id):
            self._prove("a job that could not be drawn here was received again")
        log.info("drawing", extra={"facts": job.model_dump(exclude={"id", "prompt", "metadata"})})
        drawing = self._draw(job, hold)
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

    def _draw(self, job: Job, hold: Hold) -> Drawing:
        try:
            drawing = self.model.draw(job, Steps(job, hold, self.monitor, self.stop))
        except (Interrupted, Lost):
            raise
        except Exception as error:
            self.drawings.failed(job.id, error, self._return_seconds(hold.message))
            raise
        self.drawings.drawn()
        self.on_drawn()
        return drawing


def _doubled(seconds: float, message: Message) -> float:
    """Twice as long at each further receive."""
    return float(min(seconds * 2 ** min(message.receives - 1, 10), _LONGEST_RETURN_SECONDS))


def _first_line(error: Exception) -> str:
    """An error in a line; without the rest, which may be pages of a compiler's output."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:_REASON_CHARACTERS]


def _without_prompt(line: str, body: str) -> str:
    """An error's kind alone, where its text quotes the job's prompt: events carry none."""
    with contextlib.suppress(InvalidJob):
        if parse(body).prompt[:_QUOTED_CHARACTERS] in line:
            return line.partition(":")[0]
    return line
