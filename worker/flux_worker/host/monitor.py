"""Report what the worker does to systemd, Prometheus and `flux-worker status`; on loopback only."""

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
Interruption = Literal["spot", "rebalance", "autoscaling", "root_volume", "maintenance"]
Service = Literal["sqs", "s3", "events"]
Trip = Literal["drawing", "picture", "refusal"]

HOST = "127.0.0.1"
_STEP_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 5, 10, 30, 60)
_IMAGE_SECONDS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1800)
_LAG_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
_SIZES = {"VmHWM": "ram_peak", "VmRSS": "ram", "RssAnon": "ram_anonymous"}


class Monitor:
    """The worker's state and counters. Thread-safe."""

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
        self._jobs = Counter("flux_jobs", "Jobs by outcome", ["outcome"], registry=to)
        self._interruptions = Counter(
            "flux_interruptions", "Interruptions that EC2 announced", ["kind"], registry=to
        )
        self._aws_failures = Counter(
            "flux_aws_failures", "Calls to AWS that failed, by service", ["service"], registry=to
        )
        self._trips = Counter(
            "flux_breaker_trips",
            "How often a breaker stopped receiving, by kind of failure",
            ["kind"],
            registry=to,
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
        """systemd's watchdog must be pinged at least this often; 0: it need not be."""
        return self._notifier.watchdog_seconds

    def limit_wait(self, seconds: float) -> float:
        """The part of `seconds` that the worker may wait before it must ping systemd's watchdog."""
        watchdog = self.watchdog_seconds
        return min(seconds, max(1.0, watchdog / 3)) if watchdog else seconds

    def doing(
        self, text: str, job: str | None = None, step: int | None = None, steps: int | None = None
    ) -> None:
        """Set the current activity, in words, with the job and its step if there is one; pings systemd."""
        with self._lock:
            self._status |= {"doing": text, "since": _now(), "job": job, "step": step, "steps": steps}
        self._notifier.status(text)

    def ping(self) -> None:
        """Ping systemd's watchdog."""
        self._notifier.ping()

    def extend_start(self, seconds: float) -> None:
        """The start makes progress: let systemd wait for READY for so many seconds from now."""
        self._notifier.extend_start(seconds)

    def ready(self) -> None:
        """The model is loaded and warmed up: the worker receives jobs."""
        self._serve(True)
        self._notifier.ready()

    def stopping(self) -> None:
        """The worker receives no more jobs, and the process ends."""
        self._serve(False)
        self._notifier.stopping()

    def _serve(self, serving: bool) -> None:
        with self._lock:
            self._serving = serving
            self._tell_ready()

    def blocked(self, by: str, why: str | None) -> None:
        """Set why `by`, such as "receiving", blocks the worker; None: it does not any more.

        systemd's READY stays, since a restart would load 34 GB again and fix nothing at AWS.
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

    @property
    def is_ready(self) -> bool:
        """Whether the worker receives jobs, as `flux_ready` says."""
        with self._lock:
            return bool(self._status["ready"])

    def job(self, outcome: Outcome) -> None:
        """Count a job with this outcome."""
        self._jobs.labels(outcome).inc()

    def interruption(self, kind: Interruption) -> None:
        """Count an interruption that EC2 announced."""
        self._interruptions.labels(kind).inc()

    def aws_failure(self, service: Service) -> None:
        """Count a failed call to AWS, whether or not it is retried."""
        self._aws_failures.labels(service).inc()

    def breaker_tripped(self, kind: Trip) -> None:
        """Count a trip of a circuit breaker."""
        self._trips.labels(kind).inc()

    def step(self, seconds: float) -> None:
        """Record the duration of a step."""
        self._steps.observe(seconds)

    def image(self, seconds: float) -> None:
        """Record the duration of an image."""
        self._images.observe(seconds)

    def lag(self, seconds: float) -> None:
        """Record the seconds between sending and receiving a job."""
        self._lag.observe(max(0.0, seconds))

    @property
    def address(self) -> str | None:
        """The URL of metrics and status; None if they are not served."""
        return f"http://{HOST}:{self._server.server_port}" if self._server else None

    def status(self) -> dict[str, Any]:
        """The content of `/status`: the current state, and counts since the start."""
        with self._lock:
            known = {name: value for name, value in self._status.items() if value is not None}
        jobs = {
            outcome: int(self.registry.get_sample_value("flux_jobs_total", {"outcome": outcome}) or 0)
            for outcome in get_args(Outcome)
        }
        means = {name: self._mean(name) for name in ("step", "image", "queue_lag")}
        return known | {"jobs": jobs, "mean_seconds": means, "memory": memory()}

    def _mean(self, name: str) -> float | None:
        """The mean since the start; None before the first measurement."""
        total, count = (
            self.registry.get_sample_value(f"flux_{name}_seconds_{part}") or 0.0 for part in ("sum", "count")
        )
        return round(total / count, 4) if count else None

    def close(self) -> None:
        """Stop serving metrics and status."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def memory() -> dict[str, int]:
    """Bytes of RAM and VRAM, now and at their peak; VRAM only if torch is loaded and uses a GPU.

    `ram` and `ram_peak` contain mapped weights, which the kernel may drop; `ram_anonymous` does not.
    """
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {_SIZES[key]: int(words[0]) * 1024 for name, *words in lines if (key := name[:-1]) in _SIZES}
    cuda: Any = sys.modules.get("torch.cuda")
    initialized = getattr(cuda, "is_initialized", None)  # None while another thread is importing it
    if initialized and initialized():
        found |= {"vram": cuda.memory_reserved(), "vram_peak": cuda.max_memory_reserved()}
    return found


class _Memory(Collector):
    """Memory, read at each scrape."""

    def collect(self) -> Iterable[Metric]:
        for name, size in memory().items():
            yield GaugeMetricFamily(f"flux_{name}_bytes", "Bytes, see `memory` of /status", value=size)


class _Quiet(WSGIRequestHandler):
    """Does not log requests: there is a scrape every few seconds."""

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Serves each request in a daemon thread."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Log a failed request; socketserver would print it."""
        log.warning("a request for metrics or status was not answered", exc_info=True)

    def server_bind(self) -> None:
        # WSGIServer would resolve the host's name, which may take long without a name service.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]
        self.setup_environ()


def _serve(monitor: Monitor, port: int) -> _Server | None:
    """Serve on loopback from its own thread; without metrics if the port is in use."""
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
        log.warning("no metrics on port %d: %s; set FLUX_METRICS_PORT to another port or 0", port, error)
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
