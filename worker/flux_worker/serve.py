"""`flux-worker serve`: everything is put together, the model loaded, the queue served."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .aws.clients import Clients
from .aws.endpoints import oddities
from .errors import BadPicture, ConfigurationError
from .host import interruption
from .host.monitor import Monitor
from .host.notify import Notifier
from .host.restarts import Restarts
from .host.startup import STALL_SECONDS, StartUp
from .host.stop import Stopped, StopRequest
from .jobs.claims import Claims
from .jobs.delivery import Delivery
from .jobs.outbox import Outbox
from .jobs.prerequisites import Places
from .jobs.queue import JobQueue
from .jobs.results import Results
from .jobs.retry import Persistence
from .settings import ServeSettings
from .worker import Worker

if TYPE_CHECKING:
    from .inference.model import FluxModel

log = logging.getLogger(__name__)

_SIGN_SECONDS = 10.0  # between two signs of life while a start waits


def serve(settings: ServeSettings) -> None:
    """Load the model, tell systemd, serve. Returns when asked to stop. Raises ConfigurationError and Sick."""
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
            restarts = end.enter_context(_counted(settings, monitor, stop))
            model = _load(settings, startup)
            worker = _worker(settings, model, outbox, monitor, stop)
            worker.on_drawn = restarts.forget
        if not stop.asked:  # where Stopped was raised in a destructor, Python dropped it
            monitor.ready()
            watch.launched()
            worker.run()
    log.info("stopped: %s", stop.why)


@contextlib.contextmanager
def _counted(settings: ServeSettings, monitor: Monitor, stop: StopRequest) -> Iterator[Restarts]:
    """A start that counts as one in vain until the worker has drawn a job, or is asked to end."""
    restarts = Restarts(settings.state_dir)
    end = time.monotonic() + restarts.pause()
    try:
        while (left := end - time.monotonic()) > 0 and not stop.asked:
            monitor.extend_start(left + STALL_SECONDS)
            monitor.doing(f"Waiting {left:.0f} s: {restarts.in_vain} starts in a row came to nothing")
            stop.wait(min(left, _SIGN_SECONDS))
        restarts.begin()
        yield restarts
    except ConfigurationError:
        restarts.uncount()
        raise
    except Stopped:
        restarts.forget()
        raise
    if stop.asked:
        restarts.forget()


def _load(settings: ServeSettings, startup: StartUp) -> FluxModel:
    startup.doing("Loading the libraries")
    # torch and CUDA are gigabytes, and come from a fresh volume as well.
    from .inference.image_checks import CURE
    from .inference.model import load

    started = time.monotonic()
    startup.doing("Loading the model")
    model = load(settings, on_found=lambda size: startup.doing("Loading the model", size))
    loaded = time.monotonic()
    startup.doing("Drawing a warm-up")
    try:
        model.warm_up(lambda _: startup.step())
    except BadPicture as error:
        raise ConfigurationError(f"the warm-up drew no picture: {error}. {CURE}") from error
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
    clients = Clients.of(settings, monitor)
    for oddity in oddities(settings, clients):
        log.warning("%s", oddity)
    queue = JobQueue(clients.sqs, settings.queue_url, settings.visibility_seconds, clients.polling)
    bus = settings.event_bus
    results = Results(
        clients.s3, clients.events, bucket=settings.bucket, prefix=settings.prefix, event_bus=bus
    )
    claims = Claims(clients.claiming, settings.bucket, settings.prefix, settings.visibility_seconds)
    persistence = Persistence(stop, monitor)
    delivery = Delivery(queue, results, claims, outbox, persistence)
    places = Places(queue, clients.events, bus, monitor)
    return Worker(model, queue, delivery, persistence, monitor, stop, places=places)
