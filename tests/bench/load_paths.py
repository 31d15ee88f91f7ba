"""How long the worker's load takes by each path to the weights: for bench_worker.py.

Mapped as torch maps files, streamed from the disk, and streamed from the disk and S3 at once. The page cache
is emptied of the model's files before each; where the volume has been read before, its blocks are there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

PATHS = ("mapped", "streamed", "two paths")
HEADER = (
    "| load | precision | s | MB/s | host RAM while loading, MiB | bytes by source |"
    "\n|---|---|---|---|---|---|"
)
MIB = 1 << 20


class NotMeasured(Exception):
    """Why a row cannot be measured here."""


def evict(model: Path) -> None:
    """Drop a model's files from the page cache."""
    for file in model.rglob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def measure(environment: dict[str, str], model: Path, path: str, stream: str | None) -> dict[str, Any]:
    """Load once by one path. Raises NotMeasured where this worker or machine has it not."""
    from bench_worker import sampled_peak

    from flux_worker.inference import capacity
    from flux_worker.inference.model import load
    from flux_worker.settings import ModelSettings

    if path == "mapped" and hasattr(capacity, "no_room_to_stream"):
        setattr(capacity, "no_room_to_stream", lambda *_: "this row is for mapped files")  # noqa: B010
    if path == "two paths":
        if not stream:
            raise NotMeasured("--stream names no bucket")
        environment = environment | {"FLUX_STREAM": stream}
    settings = ModelSettings.from_environment(environment)
    evict(model)
    started = time.monotonic()
    with sampled_peak() as peak:
        before = peak[0]
        loaded = load(settings)
    row: dict[str, Any] = {"load": time.monotonic() - started, "peak": peak[0] - before}
    return row | {"sources": _sources(getattr(loaded, "streamed", None), path)}


def _sources(report: Any, path: str) -> dict[str, int]:
    """The bytes that each source gave."""
    if path == "mapped":
        return {}
    if report is None:
        raise NotMeasured("the worker mapped the files: its log says why")
    sources = {one.name: one.bytes for one in report.sources}
    if path == "two paths" and sum(count > 0 for count in sources.values()) < 2:
        raise NotMeasured(f"only one source gave bytes: {report.dropped or 'the others are not set up'}")
    return sources


def line(path: str, precision: str, weights: int, row: dict[str, Any]) -> str:
    """A row of the table, of what was measured or of why it was not."""
    if "failed" in row:
        return f"| {path} | {precision} | {row['failed'][:200]} | | | |"
    rate = weights / 1e6 / row["load"]
    sources = ", ".join(f"{name} {count / 1e6:,.0f} MB" for name, count in row["sources"].items()) or "–"
    return f"| {path} | {precision} | {row['load']:.1f} | {rate:,.0f} | {row['peak'] / MIB:.0f} | {sources} |"
