"""What the worker is doing, for systemd, for Prometheus and for `flux-worker status`; on loopback alone."""

from __future__ import annotations

import json
import logging
import os
import socketserver
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import __version__
from .notify import Notifier

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

Outcome = Literal["drawn", "announced_again", "refused", "failed", "handed_back", "set_aside"]
Interruption = Literal["spot", "rebalance", "autoscaling"]
Service = Literal["sqs", "s3", "events"]
Trip = Literal["drawing", "picture", "refusal"]

HOST = "127.0.0.1"
_STEP_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 5, 10, 30, 60)
_IMAGE_SECONDS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1800)
_LAG_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_SIZES = {"VmHWM": "ram_peak", "VmRSS": "ram", "RssAnon": "ram_anonymous"}


class Monitor:
    """Counts what happens and says what is going on. Every method may be called from any thread."""

    def __init__(self, notifier: Notifier, port: int = 0) -> None:
        self._notifier = notifier
        self._lock = threading.Lock()
        self._status: dict[str, Any] = {"version": __version__, "pid": os.getpid(), "started": _now()}
        self._status |= {"ready": False, "doing": "Starting", "since": _now()}
        self._blocked: dict[str, str] = {}
        self._serving = False
        self.registry = CollectorRegistry()
        self._measures()
        self._server = _serve(self, port) if port else None

    def _measures(self) -> None:
        to = self.registry
        self._jobs = Counter("flux_jobs", "Jobs by what became of them", ["outcome"], registry=to)
        self._interruptions = Counter("flux_interruptions", "What EC2 announced", ["kind"], registry=to)
        self._aws_failures = Counter(
            "flux_aws_failures", "Calls to AWS that failed, by service", ["service"], registry=to
        )
        self._trips = Counter(
            "flux_breaker_trips", "How often receiving was stopped, by what failed", ["kind"], registry=to
        )
        labelled: tuple[tuple[Counter, Any], ...] = (
            (self._jobs, Outcome),
            (self._interruptions, Interruption),
            (self._aws_failures, Service),
            (self._trips, Trip),
        )
        for counter, kinds in labelled:
            for kind in get_args(kinds):
                counter.labels(kind)
        self._steps = Histogram("flux_step_seconds", "Seconds a step", buckets=_STEP_SECONDS, registry=to)
        self._images = Histogram(
            "flux_image_seconds", "Seconds an image", buckets=_IMAGE_SECONDS, registry=to
        )
        self._lag = Histogram(
            "flux_queue_lag_seconds", "From sending a job to receiving it", buckets=_LAG_SECONDS, registry=to
        )
        self._ready = Gauge("flux_ready", "1 while jobs are received", registry=to)
        to.register(_Memory())

    @property
    def watchdog_seconds(self) -> float:
        """systemd wants a sign of life at least this often; 0 means that it wants none."""
        return self._notifier.watchdog_seconds

    def limit_wait(self, seconds: float) -> float:
        """At most so many of these seconds may pass without a sign of life, so that systemd waits on."""
        watchdog = self.watchdog_seconds
        return min(seconds, max(1.0, watchdog / 3)) if watchdog else seconds

    def doing(
        self, text: str, job: str | None = None, step: int | None = None, steps: int | None = None
    ) -> None:
        """What goes on now, in words, with the job and its step if there is one; counts as a sign of life."""
        with self._lock:
            self._status |= {"doing": text, "since": _now(), "job": job, "step": step, "steps": steps}
        self._notifier.status(text)

    def ping(self) -> None:
        """A sign of life for the watchdog, where nothing new is to be said."""
        self._notifier.ping()

    def extend_start(self, seconds: float) -> None:
        """The worker gets on: systemd is to wait for READY so many seconds more, from now."""
        self._notifier.extend_start(seconds)

    def ready(self) -> None:
        """The model is loaded and has drawn once: jobs may come."""
        self._serve(True)
        self._notifier.ready()

    def stopping(self) -> None:
        """No more jobs are taken, and the process ends."""
        self._serve(False)
        self._notifier.stopping()

    def _serve(self, serving: bool) -> None:
        with self._lock:
            self._serving = serving
            self._tell_ready()

    def blocked(self, by: str, why: str | None) -> None:
        """What keeps jobs from being received, such as "receiving"; None: `by` keeps them no more.

        systemd is told nothing: READY stays with the model, so that trouble at AWS never loads 34 GB again.
        """
        with self._lock:
            if why is None:
                self._blocked.pop(by, None)
            else:
                self._blocked[by] = why
            self._tell_ready()

    def _tell_ready(self) -> None:
        ready = self._serving and not self._blocked
        self._status |= {"ready": ready, "blocked": list(self._blocked.values()) or None}
        self._ready.set(ready)

    def job(self, outcome: Outcome) -> None:
        """One job more of this outcome."""
        self._jobs.labels(outcome).inc()

    def interruption(self, kind: Interruption) -> None:
        """EC2 announced something."""
        self._interruptions.labels(kind).inc()

    def aws_failure(self, service: Service) -> None:
        """A call to AWS failed, whether or not it is tried again."""
        self._aws_failures.labels(service).inc()

    def breaker_tripped(self, kind: Trip) -> None:
        """Receiving was stopped, since what was tried failed several times in a row."""
        self._trips.labels(kind).inc()

    def step(self, seconds: float) -> None:
        """One step was drawn."""
        self._steps.observe(seconds)

    def image(self, seconds: float) -> None:
        """One image was drawn."""
        self._images.observe(seconds)

    def lag(self, seconds: float) -> None:
        """A job was received this long after it was sent."""
        self._lag.observe(max(0.0, seconds))

    @property
    def address(self) -> str | None:
        """Where metrics and status are served; None where they are not."""
        return f"http://{HOST}:{self._server.server_port}" if self._server else None

    def status(self) -> dict[str, Any]:
        """What `/status` shows: the state now, and the counts since the start."""
        with self._lock:
            known = {name: value for name, value in self._status.items() if value is not None}
        jobs = {
            outcome: int(self.registry.get_sample_value("flux_jobs_total", {"outcome": outcome}) or 0)
            for outcome in get_args(Outcome)
        }
        means = {name: self._mean(name) for name in ("step", "image", "queue_lag")}
        return known | {"jobs": jobs, "mean_seconds": means, "memory": memory()}

    def _mean(self, name: str) -> float | None:
        """Since the start; None where nothing was measured yet."""
        total, count = (
            self.registry.get_sample_value(f"flux_{name}_seconds_{part}") or 0.0 for part in ("sum", "count")
        )
        return round(total / count, 4) if count else None

    def close(self) -> None:
        """Serve metrics and status no more."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def memory() -> dict[str, int]:
    """Bytes of RAM and VRAM, now and at their peak; VRAM only where torch is loaded and uses a GPU.

    `ram` and `ram_peak` hold mapped weights, which the kernel may drop at any time; `ram_anonymous` does not.
    """
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {_SIZES[key]: int(words[0]) * 1024 for name, *words in lines if (key := name[:-1]) in _SIZES}
    cuda: Any = sys.modules.get("torch.cuda")
    initialized = getattr(cuda, "is_initialized", None)  # None while another thread is importing it
    if initialized and initialized():
        found |= {"vram": cuda.memory_reserved(), "vram_peak": cuda.max_memory_reserved()}
    return found


class _Memory(Collector):
    """Memory, looked up at each scrape."""

    def collect(self) -> Iterable[Metric]:
        for name, size in memory().items():
            yield GaugeMetricFamily(f"flux_{name}_bytes", "Bytes, see `memory` of /status", value=size)


class _Quiet(WSGIRequestHandler):
    """A scrape every few seconds is nothing to log."""

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """One thread a request, none of which keeps the process alive."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Log what goes wrong with one request; socketserver would print it."""
        log.warning("a request for metrics or status was not answered", exc_info=True)

    def server_bind(self) -> None:
        # WSGIServer would look the host's name up, which may take long where there is no name service.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]
        self.setup_environ()


def _serve(monitor: Monitor, port: int) -> _Server | None:
    """Answer on loopback from a thread of its own; a port that is taken costs the metrics, not the worker."""
    metrics: WSGIApplication = make_wsgi_app(monitor.registry)

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return metrics(environ, start)
        if path == "/status":
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(monitor.status()).encode()]
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"/metrics or /status\n"]

    try:
        server = make_server(HOST, port, answer, _Server, _Quiet)
    except OSError as error:
        log.warning("no metrics on port %d: %s; set FLUX_METRICS_PORT to another, or to 0", port, error)
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
