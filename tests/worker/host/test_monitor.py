"""Metrics and status, scraped over HTTP as Prometheus and `flux-worker status` do."""

from __future__ import annotations

import gc
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flux_worker.errors import WorkerError
from flux_worker.host import status as host_status
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from tests.worker.conftest import free_ports

COMMAND = str(Path(sys.executable).parent / "flux-worker")


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    while not (made := Monitor(Notifier({}), free_ports())).address:
        pass  # somebody else was quicker
    yield made
    made.close()


def get(monitor: Monitor, path: str) -> str:
    with urllib.request.urlopen(f"{monitor.address}{path}", timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def samples(monitor: Monitor) -> dict[str, float]:
    families = text_string_to_metric_families(get(monitor, "/metrics"))
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_every_count_is_there_from_the_start(monitor: Monitor) -> None:
    """A counter that appears with its first event has no rate until the second."""
    found = samples(monitor)
    outcomes = ("drawn", "announced_again", "refused", "failed", "handed_back")
    assert [found[f"flux_jobs_total{outcome}"] for outcome in outcomes] == [0] * 5
    assert [found[f"flux_interruptions_total{kind}"] for kind in ("spot", "rebalance", "autoscaling")] == [
        0
    ] * 3
    assert found["flux_ready"] == 0


def test_what_happens_is_counted_and_timed(monitor: Monitor) -> None:
    for seconds in (0.4, 0.6):
        monitor.step(seconds)
    monitor.image(14)
    monitor.lag(75)
    monitor.lag(-2)  # SQS's clock is not ours
    monitor.job("drawn")
    monitor.job("refused")
    monitor.interruption("spot")
    monitor.ready()
    found = samples(monitor)
    assert (found["flux_jobs_totaldrawn"], found["flux_jobs_totalrefused"]) == (1, 1)
    assert (found["flux_step_seconds_count"], found["flux_step_seconds_sum"]) == (2, 1.0)
    assert (found["flux_image_seconds_sum"], found["flux_queue_lag_seconds_sum"]) == (14, 75)
    assert (found["flux_interruptions_totalspot"], found["flux_ready"]) == (1, 1)
    monitor.stopping()
    assert samples(monitor)["flux_ready"] == 0


def test_memory_is_this_process_own(monitor: Monitor) -> None:
    """The peak stays when the memory is given back; VRAM is told only where a GPU is used."""
    gc.collect()  # what is given back meanwhile would be counted, too
    before = samples(monitor)
    grown = bytearray(200 << 20)
    peak = samples(monitor)
    assert peak["flux_ram_anonymous_bytes"] - before["flux_ram_anonymous_bytes"] > 0.9 * len(grown)
    size = len(grown)
    del grown
    after = samples(monitor)
    assert after["flux_ram_anonymous_bytes"] < peak["flux_ram_anonymous_bytes"] - 0.9 * size
    # The kernel adds each thread's share up in batches.
    assert after["flux_ram_peak_bytes"] > 0.99 * peak["flux_ram_bytes"]
    assert "flux_vram_bytes" not in after


class Cuda:
    """Stands for torch's view of a GPU."""

    def is_initialized(self) -> bool:
        return True

    def memory_reserved(self) -> int:
        return 35 << 30

    def max_memory_reserved(self) -> int:
        return 36 << 30


def test_vram_is_told_where_a_gpu_is_used(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.cuda", object())  # as long as it is being imported
    assert "flux_vram_bytes" not in samples(monitor)
    monkeypatch.setitem(sys.modules, "torch.cuda", Cuda())
    found = samples(monitor)
    assert (found["flux_vram_bytes"], found["flux_vram_peak_bytes"]) == (35 << 30, 36 << 30)


@pytest.mark.parametrize(
    "request_line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /status", id="cut-off"),
        pytest.param(b"\x16\x03\x01" + bytes(2000) + b"\r\n\r\n", id="tls"),
    ],
)
def test_a_strange_client_disturbs_nobody(
    monitor: Monitor, request_line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    port = int(str(monitor.address).rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(request_line)
    assert samples(monitor)["flux_ready"] == 0
    assert capfd.readouterr().err == "", "only JSON lines go to stderr"


def test_status_tells_what_goes_on(monitor: Monitor) -> None:
    assert json.loads(get(monitor, "/status"))["doing"] == "Starting"
    monitor.doing("Drawing cat-1: step 3 of 28", job="cat-1", step=3, steps=28)
    monitor.job("drawn")
    monitor.step(0.5)
    status = json.loads(get(monitor, "/status"))
    assert {name: status[name] for name in ("doing", "job", "step", "steps", "ready")} == {
        "doing": "Drawing cat-1: step 3 of 28",
        "job": "cat-1",
        "step": 3,
        "steps": 28,
        "ready": False,
    }
    assert status["jobs"]["drawn"] == 1
    assert status["mean_seconds"] == {"step": 0.5, "image": None, "queue_lag": None}
    assert status["memory"]["ram"] > 0
    monitor.doing("Waiting for jobs")
    assert "job" not in json.loads(get(monitor, "/status"))


def test_systemd_hears_the_same(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monitor = Monitor(Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "9000000"}))
        monitor.doing("Drawing")
        monitor.ready()
        monitor.ping()
        monitor.stopping()
        told = [listener.recv(99) for _ in range(4)]
    assert told == [b"STATUS=Drawing\nWATCHDOG=1", b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


@pytest.mark.parametrize(
    ("watchdog", "patience"),
    [
        pytest.param({}, 20, id="none"),
        pytest.param({"WATCHDOG_USEC": "180000000"}, 20, id="long"),
        pytest.param({"WATCHDOG_USEC": "30000000"}, 10, id="short"),
        pytest.param({"WATCHDOG_USEC": "1000000"}, 1, id="too-short"),
    ],
)
def test_silence_ends_before_the_watchdog_barks(watchdog: dict[str, str], patience: float) -> None:
    assert Monitor(Notifier(watchdog)).limit_wait(20) == patience


def test_it_listens_on_loopback_alone(monitor: Monitor) -> None:
    port = int(str(monitor.address).rpartition(":")[2])
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = re.findall(rf" (\w+):{port:04X} \w+:\w+ 0A ", table)
    assert listening == ["0100007F"]


def test_other_paths_are_not_found(monitor: Monitor) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(monitor, "/../etc/passwd")


def test_a_port_that_is_taken_costs_the_metrics_only(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    second = Monitor(Notifier({}), int(str(monitor.address).rpartition(":")[2]))
    assert second.address is None
    assert "FLUX_METRICS_PORT" in caplog.text
    second.job("drawn")
    second.close()


def test_port_0_serves_nothing() -> None:
    assert Monitor(Notifier({}), 0).address is None


def test_many_threads_count_right(monitor: Monitor) -> None:
    def work() -> None:
        for step in range(500):
            monitor.step(0.1)
            monitor.doing(f"step {step}", step=step)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert "doing" in json.loads(get(monitor, "/status"))
    assert samples(monitor)["flux_step_seconds_count"] == 2000


def status(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command says; asked anew where it lost patience with this process, which serves the answer."""
    for _ in range(10):
        done = subprocess.run(
            [COMMAND, "status", *arguments], capture_output=True, text=True, env=environment, check=False
        )
        if "timed out" not in done.stderr:
            break
    return done


def test_the_command_shows_it_to_people(monitor: Monitor) -> None:
    monitor.doing("Drawing cat-1: step 3 of 28", job="cat-1", step=3, steps=28)
    monitor.ready()
    monitor.image(6.7)
    shown = status("--port", str(monitor.address).rpartition(":")[2])
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert re.fullmatch(r"flux-worker 0\.1\.0, process \d+, ready, up \d+ s", lines[0])
    assert lines[1:4] == [
        "Drawing cat-1: step 3 of 28",
        "jobs: 0 drawn, 0 announced again, 0 refused, 0 failed, 0 handed back, 0 set aside",
        "mean seconds: 6.7 image",
    ]
    assert re.fullmatch(r"GiB: [\d.]+ ram peak, [\d.]+ ram, [\d.]+ ram anonymous", lines[4])


def test_the_command_gives_json_and_reads_the_port_from_the_environment(monitor: Monitor) -> None:
    port = str(monitor.address).rpartition(":")[2]
    shown = status("--json", FLUX_METRICS_PORT=port, http_proxy="http://127.0.0.1:1")
    assert json.loads(shown.stdout)["doing"] == "Starting"


class Other(BaseHTTPRequestHandler):
    """Some other program's page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'["pages"]')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def other() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that nobody listens on, and nobody else can have."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that takes connections and never answers, as a stopped process would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("port", "message"),
    [
        pytest.param("nobody", "no worker answers", id="nobody"),
        pytest.param("other", "another program than flux-worker", id="another"),
    ],
)
def test_where_no_worker_answers_that_is_said(
    port: str, message: str, request: pytest.FixtureRequest
) -> None:
    shown = status("--port", str(request.getfixturevalue(port)))
    assert shown.returncode == 1
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_worker_that_hangs_is_not_waited_for(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_status, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(WorkerError, match=rf"no worker answers on 127\.0\.0\.1:{deaf} \(.*timed out"):
        host_status.ask(deaf)
