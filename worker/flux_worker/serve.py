"""`flux-worker serve`: wire everything up, load the model, serve the queue."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .aws.clients import Clients
from .aws.endpoints import endpoint_warnings
from .background import Background
from .errors import BadImage, ConfigurationError
from .host import interruption
from .host.cloudwatch import ReadyMetric
from .host.imds import Imds
from .host.monitor import Monitor
from .host.notify import Notifier
from .host.restarts import RestartCounter
from .host.stages import Stage, Stages
from .host.startup import STALL_SECONDS, StartupMonitor
from .host.stop import Stopped, StopRequest
from .jobs.claims import Claims
from .jobs.delivery import Delivery
from .jobs.outbox import Outbox
from .jobs.prerequisites import Prerequisites
from .jobs.queue import JobQueue
from .jobs.results import Results
from .jobs.retry import RetryPolicy
from .settings import ServeSettings
from .worker import Worker

if TYPE_CHECKING:
    from .inference.model import FluxModel

log = logging.getLogger(__name__)

_SIGN_SECONDS = 10.0  # between two pings of systemd while a start waits


def serve(settings: ServeSettings) -> None:
    """Load the model and serve until asked to stop. Raises ConfigurationError and WorkerBroken."""
    stop = StopRequest(settings.drain_seconds)
    with contextlib.suppress(Stopped), contextlib.ExitStack() as stack:
        monitor = Monitor(Notifier(), settings.own_port, _among(settings))
        stack.callback(monitor.close)
        with StartupMonitor(monitor) as startup:
            outbox = Outbox(settings.own_state_dir / "outbox")
            stack.callback(outbox.close)
            metric = ReadyMetric(settings, monitor, Imds())
            metric.start()
            stack.callback(metric.join)
            watch = interruption.watch(stop, settings, monitor)
            stack.callback(watch.on_drained)
            stack.callback(metric.end)  # its last value is published while hooks are completed
            stack.callback(monitor.stopping)
            restarts = stack.enter_context(_count_start(settings, monitor, stop))
            model = _load(settings, startup)
            worker = _worker(settings, model, outbox, monitor, stop)
            worker.on_generated = restarts.forget
        if not stop.requested:  # Python drops Stopped if it is raised in a destructor
            monitor.ready()
            watch.on_ready()
            worker.run()
    log.info("stopped: %s", stop.why)


def _among(settings: ServeSettings) -> dict[str, int]:
    """Which of the instance's workers this is; nothing for one that is alone."""
    return {"worker": settings.number, "workers": settings.workers} if settings.workers > 1 else {}


@contextlib.contextmanager
def _count_start(settings: ServeSettings, monitor: Monitor, stop: StopRequest) -> Iterator[RestartCounter]:
    """Count the start as failed until the worker finishes a job or is asked to stop."""
    restarts = RestartCounter(settings.own_state_dir)
    stack = time.monotonic() + restarts.pause()
    try:
        while (left := stack - time.monotonic()) > 0 and not stop.requested:
            monitor.extend_start(left + STALL_SECONDS)
            monitor.doing(f"Waiting {left:.0f} s: {restarts.failed_starts} starts in a row failed")
            stop.wait(min(left, _SIGN_SECONDS))
        restarts.begin()
        yield restarts
    except ConfigurationError:
        restarts.uncount()
        raise
    except Stopped:
        restarts.forget()
        raise
    if stop.requested:
        restarts.forget()


def _load(settings: ServeSettings, startup: StartupMonitor) -> FluxModel:
    stages = Stages.of_worker(os.environ, settings.number, settings.workers)
    startup.doing("Loading the libraries")
    with stages.stage("imports", since_start=True):
        # torch and CUDA are gigabytes, which a fresh volume also loads lazily.
        from .inference.model import load

    startup.doing("Loading the model")
    with stages.stage("load") as loading:

        def on_found(size: int) -> None:
            startup.doing("Loading the model", size)
            loading.tell({"weights_bytes": size})

        model = load(settings, on_found=on_found, on_read=startup.streamed)
        if model.streamed is not None:
            loading.tell({"stream": model.streamed.as_json()})
    startup.doing("Drawing a warm-up")
    with stages.stage("first_draw") as drawing:
        _warm_up(model, startup)
    log.info("model loaded", extra={"facts": _loaded_facts(model, stages, loading, drawing)})
    return model


def _warm_up(model: FluxModel, startup: StartupMonitor) -> None:
    from .inference.image_checks import REMEDY

    try:
        model.warm_up(lambda _: startup.step())
    except BadImage as error:
        raise ConfigurationError(f"the warm-up gave no valid image: {error}. {REMEDY}") from error


def _loaded_facts(model: FluxModel, stages: Stages, loading: Stage, drawing: Stage) -> dict[str, Any]:
    seconds = {
        "load_seconds": round(loading.seconds or 0, 1),
        "warm_up_seconds": round(drawing.seconds or 0, 1),
    }
    return {"device": model.device, "revision": model.origin.revision} | seconds | stages.facts()


def _worker(
    settings: ServeSettings, model: FluxModel, outbox: Outbox, monitor: Monitor, stop: StopRequest
) -> Worker:
    clients = Clients.from_settings(settings, monitor)
    for warning in endpoint_warnings(settings, clients):
        log.warning("%s", warning)
    queue = JobQueue(clients.sqs, settings.queue_url, settings.visibility_seconds, clients.polling)
    bus = settings.event_bus
    results = Results(
        clients.s3, clients.events, bucket=settings.bucket, prefix=settings.prefix, event_bus=bus
    )
    claims = Claims(clients.claiming, settings.bucket, settings.prefix, settings.visibility_seconds)
    background = Background(monitor)
    retry_policy = RetryPolicy(stop, background)
    delivery = Delivery(queue, results, claims, outbox, retry_policy)
    prerequisites = Prerequisites(queue, clients.events, bus, monitor)
    return Worker(
        model, queue, delivery, retry_policy, monitor, stop, background, prerequisites=prerequisites
    )
