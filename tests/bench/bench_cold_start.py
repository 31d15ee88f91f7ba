"""Starts from a disk that fills while it is read, side by side: from the process to the first image.

    sudo .venv/bin/python tests/bench/bench_cold_start.py                   # 2.1 GB of random weights
    sudo .venv/bin/python tests/bench/bench_cold_start.py --shape 4         # 4.0 GB
    sudo .venv/bin/python tests/bench/bench_cold_start.py --way d --way e --lazy latency=60,ceiling=100

One disk holds the weights, and torch and the worker as an image has them; each way starts from it anew, with
nothing of it filled and nothing cached:

    a  naive: EC2's read-ahead, safetensors' mapping copied tensor by tensor, as `.to("cuda")` does
    b  the worker of the commit that `--before` names, with the read-ahead that its image sets
    c  the same with the warm-up that the image's unit runs
    d  this worker, which streams its weights, with the warm-up
    d- this worker without the warm-up
    e  this worker with the warm-up and two paths: the same weights in a bucket as well

It needs root, for the disk, and no GPU: what a GPU's memory would get is copied in host memory. Drawing takes
far longer than on a GPU, and is the same in all ways. The bucket's server runs on this host, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bake.localcloud import host  # noqa: E402
from bake.localcloud.machines import disks  # noqa: E402
from bake.localcloud.machines.filling import parse_speeds  # noqa: E402
from bake.localcloud.machines.lazy import READ_AHEAD, LazyDisk, set_read_ahead  # noqa: E402
from tests.bench.cold_start import bucket  # noqa: E402
from tests.bench.cold_start import disk as disk_of  # noqa: E402
from tests.bench.cold_start.disk import GB, REVISION, SHAPES, snapshot  # noqa: E402

HERE = Path(__file__).parent / "cold_start"
REPO = "black-forest-labs/FLUX.1-dev"


@dataclass(frozen=True)
class Way:
    """One way to start: which program and sources, and what runs beside it."""

    name: str
    sources: str = "now"
    program: str = "worker"
    warm: bool = False
    stream: bool = False


WAYS = {
    "a": Way("naive", program="naive"),
    "b": Way("the worker before", "before"),
    "c": Way("the same with the warm-up", "before", warm=True),
    "d-": Way("streaming, without the warm-up"),
    "d": Way("streaming with the warm-up", warm=True),
    "e": Way("two paths with the warm-up", warm=True, stream=True),
}
_HEAD = (
    "way",
    "libraries s",
    "load s",
    "of the limit",
    "first image s",
    "of the limit",
    "GB read",
    "queue depth",
    "anonymous memory GB",
    "warm-up's CPU",
)


def main() -> None:
    """Make the disk unless it is there, start in each way, and print the table."""
    options = _options()
    speeds = parse_speeds(options.lazy)
    with contextlib.ExitStack() as stack:
        kept = options.folder or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="bench-cold-", dir="/var/tmp")
        )
        image = Path(kept) / f"disk-{options.shape}.img"
        if not image.exists():
            made = image.with_suffix(".partial")
            disk_of.make(made, options.shape, options.before)
            made.rename(image)
        _describe(options, image)
        rows = {name: _measure(name, image, speeds, options) for name in options.way or WAYS}
    _ratios(rows)


def _options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="2", help="GB of weights")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="only this; may be given again")
    parser.add_argument("--before", metavar="REV", default="d741034", help="the worker of b and c")
    parser.add_argument("--lazy", default="latency=30,ceiling=100", help="how the disk fills")
    parser.add_argument("--s3", type=float, default=200.0, help="MB/s that the bucket gives")
    parser.add_argument("--folder", type=Path, help="where the disk is made; kept, and used again")
    return parser.parse_args()


def _measure(name: str, image: Path, speeds: Any, options: Any) -> dict[str, Any]:
    """One start from a disk of which nothing is there, and its line of the table."""
    way, where = WAYS[name], image.with_name("root")
    lazy = LazyDisk(image, speeds.filling)
    lazy.forget()
    lazy.mount(where)
    try:
        if way.program == "naive":
            device = host.run("findmnt", "--noheadings", "--output", "SOURCE", where).strip()
            set_read_ahead(device, READ_AHEAD)
        with contextlib.ExitStack() as stack:
            environment = (
                stack.enter_context(bucket.served(_bucket(image), image.with_name("ranges.json"), options.s3))
                if way.stream
                else {}
            )
            row = _start(way, where, environment)
        row["disk"] = lazy.figures()
    finally:
        disks.unmount(where)
        lazy.unmount()
    row["weights"] = options.weights
    row["ceiling"] = speeds.filling.ceiling * 1e6
    _print_row(name, way, row)
    return row


def _start(way: Way, where: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Start the process, with the warm-up beside it from the same moment on."""
    with _warmed(where) if way.warm else contextlib.nullcontext() as report:
        command = [where / "venv/bin/python", "-B", HERE / "start.py", way.program, where / "hub", REVISION]
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        done = subprocess.run(
            [str(word) for word in command],
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "PYTHONPATH": str(where / way.sources),
                "BEGUN": str(begun),
                **environment,
            },
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{way.name}: exit code {done.returncode}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    row["warm"] = json.loads(report.read_text()) if report else None
    return row


def _bucket(image: Path) -> Path:
    return image.with_suffix(".bucket")


@contextlib.contextmanager
def _warmed(where: Path) -> Iterator[Path]:
    """What flux-warm.service runs, on the disk's own files; yields the file of its report."""
    trace, report = where / "trace.json", where.with_name("warm.json")
    report.unlink(missing_ok=True)
    settings = where.with_name("worker.env")
    settings.write_text(
        f"FLUX_MODEL_REPO={REPO}\nFLUX_MODEL_REVISION={REVISION}\nHF_HUB_CACHE={where / 'hub'}\n"
    )
    command = [where / "venv/bin/python", "-I", "-S", "-B", where / "warm/warm.py", trace, report, settings]
    process = subprocess.Popen(["ionice", "-c", "3", *map(str, command)])
    try:
        yield report
    finally:
        process.terminate()
        process.wait()


def _describe(options: Any, image: Path) -> None:
    import torch

    with contextlib.ExitStack() as stack:
        where = image.with_name("root")
        disks.mount(image, where)
        stack.callback(disks.unmount, where)
        disk_of.refresh(where)
        recorded = disk_of.record_trace(where)
        if not _bucket(image).exists():
            bucket.fill(snapshot(where), _bucket(image), image.with_name("ranges.json"))
        options.weights = sum(file.stat().st_size for file in snapshot(where).glob("*/*.safetensors"))
    print(
        f"{options.weights / GB:.2f} GB of weights; {options.lazy}; the bucket at {options.s3:g} MB/s; "
        f"the trace: {recorded}; torch {torch.__version__}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    print(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}", flush=True)


def _print_row(name: str, way: Way, row: dict[str, Any]) -> None:
    """The limits are bytes over the disk's ceiling: the weights' for the load, of all that was read else."""
    disk, warm = row["disk"], row["warm"]
    row["load"] = row["loaded"] - row["imported"]
    limit = row["weights"] / row["ceiling"]
    everything = disk.on_demand / row["ceiling"]
    share = f"{warm['cpu_seconds'] / warm['seconds']:.0%} of a core" if warm and warm["seconds"] else "–"
    cells = (
        f"{name}: {way.name}",
        f"{row['imported']:.1f}",
        f"{row['load']:.1f}",
        f"{row['load'] / limit:.2f}",
        f"{row['drawn']:.1f}",
        f"{row['drawn'] / everything:.2f}",
        f"{disk.on_demand / GB:.2f}",
        f"{disk.depth_mean:.0f}",
        f"{row['peak_anonymous'] / GB:.2f}",
        share,
    )
    print(f"| {' | '.join(cells)} |", flush=True)
    print(f"{name}: {json.dumps(row['report'])}", file=sys.stderr, flush=True)


def _ratios(rows: dict[str, dict[str, Any]]) -> None:
    """How much faster than the naive start."""
    if "a" not in rows:
        return
    print()
    for name, row in rows.items():
        if name != "a":
            load, whole = (rows["a"][key] / row[key] for key in ("load", "drawn"))
            print(f"{name}: the load {load:.1f} times as fast as a, the first image {whole:.1f} times")


if __name__ == "__main__":
    main()
