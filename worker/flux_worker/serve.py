"""The loop: receive, check, draw, upload, announce, delete; in that order, so that nothing is ever lost."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field

import boto3
from botocore.config import Config

from . import logs
from .errors import AnnouncementRefused, InvalidJob
from .job import Job, parse
from .model import FluxModel, load
from .notify import Notifier
from .results import Results
from .settings import ServeSettings
from .sqs import AWS_ERRORS, JobQueue, Message
from .stop import Stopped, StopRequest

log = logging.getLogger(__name__)

LONG_POLL_SECONDS = 20  # SQS allows no more
LONGEST_PAUSE_SECONDS = 30


@dataclass
class Worker:
    """A loaded model between a queue and the places its results go to."""

    model: FluxModel
    queue: JobQueue
    results: Results
    notifier: Notifier
    stop: StopRequest
    _failures: int = field(default=0, init=False)

    def run(self) -> None:
        """Serve until asked to stop."""
        while not self.stop.asked:
            self.notifier.status("Waiting for jobs")
            message = self._receive()
            if message:
                with self.stop.finish_first():
                    self.handle(message)

    def _receive(self) -> Message | None:
        """A message, or None after a quiet poll or a failed one (then after a pause that grows)."""
        try:
            message = self.queue.receive(self._poll_seconds())
        except AWS_ERRORS as error:
            self._failures += 1
            pause = min(2.0**self._failures, self._patience(LONGEST_PAUSE_SECONDS))
            log.error("cannot receive jobs, trying again in %.0f s: %s", pause, error)
            time.sleep(pause)
            return None
        self._failures = 0
        return message

    def _poll_seconds(self) -> int:
        return int(self._patience(LONG_POLL_SECONDS))

    def _patience(self, seconds: float) -> float:
        """Seconds to wait without a sign of life, so that the watchdog does not bark."""
        watchdog = self.notifier.watchdog_seconds
        return min(seconds, max(1.0, watchdog / 3)) if watchdog else seconds

    def handle(self, message: Message) -> None:
        """See one message through; after an error it is left alone, to come back when its visibility ends."""
        with self.queue.hidden(message):
            try:
                job = parse(message.body).seeded()
                self.model.check(job)
            except InvalidJob as error:
                with logs.about(error.job_id):
                    self._refuse(message, error)
                return
            with logs.about(job.id):
                self._fulfil(message, job)

    def _refuse(self, message: Message, error: InvalidJob) -> None:
        log.warning("job refused: %s", error)
        try:
            self.results.announce_failure(error)
            self.queue.delete(message)
        except (*AWS_ERRORS, AnnouncementRefused) as problem:
            log.error("the refusal could not be announced, the message will come back: %s", problem)

    def _fulfil(self, message: Message, job: Job) -> None:
        def on_step(done: int) -> None:
            self.notifier.status(f"Drawing {job.id}: step {done} of {job.steps}")

        log.info("drawing", extra={"facts": job.model_dump(exclude={"id", "prompt"})})
        try:
            drawing = self.model.draw(job, on_step)
        except Exception as error:
            if self.model.broken_by(error):
                raise  # the process is of no more use: systemd starts a new one, and the message comes back
            log.exception("drawing failed, the message will come back")
            return
        try:
            key = self.results.upload(drawing)
            self.notifier.ping()
            self.results.announce(drawing, key)
            self.queue.delete(message)
        except (*AWS_ERRORS, AnnouncementRefused) as problem:
            log.error("the image could not be handed over, the message will come back: %s", problem)
            return
        log.info("done", extra={"facts": {"key": key, "seconds": round(drawing.seconds, 3)}})


def serve(settings: ServeSettings) -> None:
    """Load the model, tell systemd, serve. Returns when asked to stop. Raises ConfigurationError."""
    stop = StopRequest()
    notifier = Notifier()
    with contextlib.suppress(Stopped):
        notifier.status("Loading the model")
        started = time.monotonic()
        model = load(settings)
        loaded = time.monotonic()
        model.warm_up()
        seconds = {
            "load_seconds": round(loaded - started, 1),
            "warm_up_seconds": round(time.monotonic() - loaded, 1),
        }
        log.info(
            "model loaded", extra={"facts": {"device": model.device, "revision": model.revision} | seconds}
        )
        worker = Worker(model, *_aws(settings), notifier, stop)
        notifier.ready()
        worker.run()
    notifier.stopping()
    log.info("stopped as asked")


def _aws(settings: ServeSettings) -> tuple[JobQueue, Results]:
    session = boto3.Session(region_name=settings.region)
    # A long poll answers after 20 s at the latest; other calls, with their retries, give up within 90 s.
    config = Config(connect_timeout=5, read_timeout=25, retries={"mode": "standard", "total_max_attempts": 3})
    queue = JobQueue(
        session.client("sqs", config=config),
        settings.queue_url,
        visibility_seconds=settings.visibility_seconds,
    )
    results = Results(
        session.client("s3", config=config),
        session.client("events", config=config),
        bucket=settings.bucket,
        prefix=settings.prefix,
        event_bus=settings.event_bus,
    )
    return queue, results
