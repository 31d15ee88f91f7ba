"""Serve the same jobs with a worker's sources and the light stand-in for AWS, and work out the figures."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.bench.stand_in.process import Usage, stand_in_server, usage
from tests.worker.conftest import Aws, serve_environment, until
from tests.worker.stress import evidence
from tests.worker.stress.fleet import Fleet, Line

ROOT = Path(__file__).parents[2]
VISIBILITY_SECONDS = 120  # as in production: nothing is renewed in a short drawing
BENCH_ONLY = {"figures", "sqs SendMessageBatch", "sqs GetQueueAttributes", "events DescribeEventBus"}
"""Calls of the bench, and those that a worker makes once an hour."""
_PATIENCE_SECONDS = 60  # `until` takes ten times that on a busy host
_PROBE = Path(__file__).parent / "probe"
_NOTES = "probe.jsonl"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Version:
    """A worker's sources: the folder that holds the package, and what the table calls it."""

    name: str
    source: Path


@dataclass(frozen=True)
class Setting:
    """What a turn is served with."""

    workers: int
    latency_ms: str
    draw_seconds: float
    size: int
    """Width and height of each image."""


@dataclass
class Figures:
    """The sum of some turns of one version in one setting."""

    jobs: int = 0
    seconds: float = 0.0
    """From the first drawing to the end of the last job."""
    gaps: list[float] = field(default_factory=list)
    """Seconds between two drawings of a worker."""
    gaps_cpu: list[float] = field(default_factory=list)
    """CPU seconds of the drawing thread in each: what a gap takes at least, however busy the host is."""
    outside: list[tuple[float, int]] = field(default_factory=list)
    """By worker: CPU seconds outside drawing, and the jobs that they were for."""
    calls: Counter[str] = field(default_factory=Counter)
    worker_cpu: float = 0.0
    stand_in_cpu: float = 0.0

    def add(self, other: Figures) -> None:
        """Add another turn's."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                self.calls.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    @property
    def outside_ms(self) -> float:
        """CPU milliseconds outside drawing, a job."""
        return 1000 * sum(cpu for cpu, _ in self.outside) / sum(jobs for _, jobs in self.outside)

    @property
    def gap_ms(self) -> tuple[float, float]:
        """Milliseconds between two drawings: the median and the 95th percentile."""
        return 1000 * median(self.gaps), 1000 * quantiles(self.gaps, n=20)[-1]

    @property
    def gap_cpu_ms(self) -> float:
        """CPU milliseconds of the drawing thread between two drawings: the median."""
        return 1000 * median(self.gaps_cpu)

    @property
    def stand_in_share(self) -> float:
        """The stand-in's part of the CPU seconds of both."""
        return self.stand_in_cpu / (self.stand_in_cpu + self.worker_cpu)


def gaps(lines: Iterable[Line]) -> list[float]:
    """Seconds from the end of each drawing to the beginning of the next, by one worker's log."""
    steps = [line for line in lines if line["message"] in ("drawing", "drawn")]
    times = [(line["message"], datetime.fromisoformat(line["time"]).timestamp()) for line in steps]
    return [later - at for (what, at), (_, later) in pairwise(times) if what == "drawn"]


def outside(notes: list[dict[str, Any]]) -> tuple[float, int]:
    """CPU seconds outside drawing from the first drawing to the end of the last; and of how many jobs."""
    whole = notes[-1]["process_after"] - notes[0]["process_before"]
    drawing = sum(note["thread_after"] - note["thread_before"] for note in notes)
    return whole - drawing, len(notes) - 1


def gaps_cpu(notes: list[dict[str, Any]]) -> list[float]:
    """CPU seconds of the drawing thread from the end of each drawing to the beginning of the next."""
    return [later["thread_before"] - earlier["thread_after"] for earlier, later in pairwise(notes)]


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Version]:
    """The worker's sources at a commit, in a work tree of their own."""
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as name:
        folder = Path(name) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(folder), revision)
        try:
            commit = _git("rev-parse", "--short", f"{revision}^{{commit}}")
            yield Version(f"before ({commit})", folder / "worker")
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> str:
    git = subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return git.stdout.strip()


def serve(version: Version, setting: Setting, jobs: int, cache: Path, folder: Path) -> Figures:
    """Serve `jobs` jobs that are on the queue before the first is received."""
    with stand_in_server(setting.latency_ms) as url:
        aws = Aws(url, f"bench-{next(_numbers)}")
        environment = serve_environment(aws, cache, folder) | {
            "FLUX_VISIBILITY_SECONDS": str(VISIBILITY_SECONDS),
            "HF_HUB_OFFLINE": "1",  # the probe imports what reads it before the worker sets it
            "PROBE_SECONDS": str(setting.draw_seconds),
        }
        fleet = Fleet(folder, environment, size=setting.workers)
        for slot in fleet.slots:
            slot.place |= {"PYTHONPATH": f"{version.source}:{_PROBE}"}
            slot.place["PROBE_NOTES"] = str(slot.folder / _NOTES)
        with fleet:
            figures = _serve(fleet, aws, [_job(number, setting.size) for number in range(jobs)])
        for slot in fleet.slots:
            source, *notes = map(json.loads, (slot.folder / _NOTES).read_text().splitlines())
            assert source == {"source": str(version.source)}, f"another worker was measured: {source}"
            drawings = [note for note in notes if note["job"] != "warm-up"]
            figures.outside.append(outside(drawings))
            figures.gaps_cpu += gaps_cpu(drawings)
        return figures


def _serve(fleet: Fleet, aws: Aws, bodies: list[str]) -> Figures:
    until(lambda: _ready(fleet), _PATIENCE_SECONDS, "the workers to be ready")
    before, cpu = usage(aws.endpoint), _cpu_seconds(fleet)
    for group in range(0, len(bodies), 10):
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        aws.client("sqs").send_message_batch(QueueUrl=aws.jobs, Entries=entries[group : group + 10])
    until(lambda: _done(fleet) == len(bodies), _PATIENCE_SECONDS, "the jobs to be done")
    spent, worker_cpu = usage(aws.endpoint).since(before), _cpu_seconds(fleet) - cpu
    assert fleet.stop() == [0] * len(fleet.slots)
    _check(aws, {json.loads(body)["id"] for body in bodies})
    return _figures(fleet, len(bodies), spent, worker_cpu)


def _ready(fleet: Fleet) -> bool:
    fleet.follow()
    return all(slot.life.ready() for slot in fleet.slots)


def _done(fleet: Fleet) -> int:
    fleet.follow()
    return fleet.done()


def _figures(fleet: Fleet, jobs: int, spent: Usage, worker_cpu: float) -> Figures:
    lines = [line for life in fleet.lives() for line in life.lines]
    times = {
        what: [datetime.fromisoformat(line["time"]) for line in lines if line["message"] == what]
        for what in ("drawing", "done")
    }
    return Figures(
        jobs=jobs,
        seconds=(max(times["done"]) - min(times["drawing"])).total_seconds(),
        gaps=[gap for life in fleet.lives() for gap in gaps(life.lines)],
        calls=Counter({name: count for name, count in spent.calls.items() if name not in BENCH_ONLY}),
        worker_cpu=worker_cpu,
        stand_in_cpu=spent.cpu_seconds,
    )


def _check(aws: Aws, jobs: set[str]) -> None:
    """Each job is drawn once, stored and announced, and nothing else is there."""
    stored = set(evidence.objects(aws.client("s3"), aws.bucket))
    assert stored == {f"{evidence.PREFIX}{job}{end}" for job in jobs for end in (".json", ".png")}, stored
    events = [json.loads(body) for body in evidence.bodies(aws.client("sqs"), aws.events)]
    assert sorted(event["detail"]["id"] for event in events) == sorted(jobs)
    assert aws.left() == 0


def _cpu_seconds(fleet: Fleet) -> float:
    """CPU seconds that the workers have used, by the kernel's count in ticks."""
    used = 0
    for slot in fleet.slots:
        stat = Path(f"/proc/{slot.life.process.pid}/stat").read_text().rpartition(")")[2].split()
        used += int(stat[11]) + int(stat[12])  # utime and stime: proc_pid_stat(5)
    return used / os.sysconf("SC_CLK_TCK")


def _job(number: int, size: int) -> str:
    job = {"id": f"job-{number}", "prompt": "a cat on a roof", "width": size, "height": size}
    return json.dumps(job | {"steps": 1, "seed": number})
