"""`flux-worker serve`: everything is put together, the model loaded, the queue served."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from .host import interruption
from .host.monitor import Monitor
from .host.notify import Notifier
from .host.startup import StartUp
from .host.stop import Stopped, StopRequest
from .jobs.claims import Claims
from .jobs.delivery import Delivery
from .jobs.outbox import Outbox
from .jobs.results import Results
from .jobs.retry import Persistence
from .jobs.sqs import JobQueue
from .settings import ServeSettings
from .worker import Worker

if TYPE_CHECKING:
    from .inference.model import FluxModel

log = logging.getLogger(__name__)


def serve(settings: ServeSettings) -> None:
    """Load the model, tell systemd, serve. Returns when asked to stop. Raises ConfigurationError."""
    stop = StopRequest(settings.drain_seconds)
    with contextlib.suppress(Stopped), contextlib.ExitStack() as end:
        monitor = Monitor(Notifier(), settings.metrics_port)
        end.callback(monitor.close)
        with StartUp(monitor) as startup:
            outbox = Outbox(settings.state_dir / "outbox")
            end.callback(outbox.close)
            watch = interruption.watch(stop, settings, monitor)
            end.callback(watch.drained)
            end.callback(monitor.stopping)
            model = _load(settings, startup)
            worker = _worker(settings, model, outbox, monitor, stop)
        if not stop.asked:  # where Stopped was raised in a destructor, Python dropped it
            monitor.ready()
            watch.launched()
            worker.run()
    log.info("stopped: %s", stop.why)


def _load(settings: ServeSettings, startup: StartUp) -> FluxModel:
    startup.doing("Loading the libraries")
    # torch and CUDA are gigabytes, and come from a fresh volume as well.
    from .inference.model import load

    started = time.monotonic()
    startup.doing("Loading the model")
    model = load(settings, on_found=lambda size: startup.doing("Loading the model", size))
    loaded = time.monotonic()
    startup.doing("Drawing a warm-up")
    model.warm_up(lambda _: startup.step())
    seconds = {
        "load_seconds": round(loaded - started, 1),
        "warm_up_seconds": round(time.monotonic() - loaded, 1),
    }
    log.info(
        "model loaded", extra={"facts": {"device": model.device, "revision": model.origin.revision} | seconds}
    )
    return model


def _worker(
    settings: ServeSettings, model: FluxModel, outbox: Outbox, monitor: Monitor, stop: StopRequest
) -> Worker:
    session = boto3.Session(region_name=settings.region)
    # A long poll answers after 20 s at the latest. A claim is renewed each third of its lease, so that it had
    # better fail soon. Whatever fails is tried again by the worker itself.
    polling = session.client("sqs", config=_patient(5, 25, attempts=3))
    sqs = session.client("sqs", config=_patient(2, 5, attempts=2))
    s3 = session.client("s3", config=_patient(3, 20, attempts=3))
    claiming = session.client("s3", config=_patient(2, 5, attempts=2))
    events = session.client("events", config=_patient(3, 10, attempts=3))
    queue = JobQueue(sqs, settings.queue_url, settings.visibility_seconds, polling)
    results = Results(
        s3, events, bucket=settings.bucket, prefix=settings.prefix, event_bus=settings.event_bus
    )
    claims = Claims(claiming, settings.bucket, settings.prefix, settings.visibility_seconds)
    persistence = Persistence(stop, monitor)
    delivery = Delivery(queue, results, claims, outbox, persistence)
    return Worker(model, queue, delivery, persistence, monitor, stop, _max_receives(queue))


def _patient(connect: float, read: float, *, attempts: int) -> Config:
    retries = {"mode": "standard", "total_max_attempts": attempts}
    return Config(connect_timeout=connect, read_timeout=read, retries=retries)  # type: ignore[arg-type]


def _max_receives(queue: JobQueue) -> int | None:
    receives = queue.max_receives()
    if receives == 0:
        log.warning(
            "the queue has no dead-letter queue: a job that fails each time comes back until it expires"
        )
    return receives
