"""One start: import, load and draw in a process of its own; stdout ends with what each took, as JSON.

    BEGUN=<CLOCK_BOOTTIME> python start.py naive|worker CACHE REVISION

Run by the Python of the disk that is measured, so it imports nothing of this repository but the worker.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIDE, STEPS, TOKENS = 256, 2, 512  # what the worker draws first on a CPU
_MEMORY = re.compile(r"^(VmHWM|RssAnon):\s+(\d+) kB$", re.M)


def now() -> float:
    """Seconds since the boot, the same clock in all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def memory() -> dict[str, int]:
    """Bytes: the most that was resident, with mapped files, and what is anonymous now (proc(5))."""
    return {name: 1024 * int(kib) for name, kib in _MEMORY.findall(Path("/proc/self/status").read_text())}


@contextmanager
def sampled() -> Iterator[list[int]]:
    """The largest anonymous memory inside the block, looked at every 10 ms."""
    peak, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], memory()["RssAnon"])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def naive(model: Path, marks: dict[str, float]) -> None:
    """As diffusers' documentation has it, with each mapped tensor copied as a GPU would get it."""
    import torch
    from diffusers import FluxPipeline

    marks["imported"] = now()
    pipeline = FluxPipeline.from_pretrained(model, dtype=torch.bfloat16, local_files_only=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part._apply(torch.clone)
    marks["loaded"] = now()
    pipeline(
        prompt="a warm-up",
        width=SIDE,
        height=SIDE,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(0),
        max_sequence_length=TOKENS,
    )


def worker(settings: dict[str, str], marks: dict[str, float]) -> Any:
    """As `flux-worker serve` starts, without the queue."""
    from flux_worker.inference.model import load
    from flux_worker.settings import ModelSettings

    marks["imported"] = now()
    model = load(ModelSettings.from_environment(settings))
    marks["loaded"] = now()
    model.warm_up()
    streamed = getattr(model, "streamed", None)  # the worker before has none
    return streamed and streamed.as_json()


def main() -> None:
    """Start in the way that is named."""
    way, cache, revision = sys.argv[1:]
    os.environ["HF_HUB_OFFLINE"] = "1"
    marks = {"begun": float(os.environ["BEGUN"])}
    settings = {"FLUX_MODEL_REVISION": revision, "HF_HUB_CACHE": cache, "FLUX_BACKEND": "cpu"}
    passed = ("FLUX_STREAM", "FLUX_STREAM_RANGES", "SPOT_AWS_REGION")
    settings |= {name: os.environ[name] for name in passed if name in os.environ}
    report = None
    with sampled() as peak:
        if way == "naive":
            folder = Path(cache) / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / revision
            naive(folder, marks)
        else:
            report = worker(settings, marks)
        marks["drawn"] = now()
    spent = os.times()
    print(
        json.dumps(
            {
                **{name: at - marks["begun"] for name, at in marks.items()},
                "peak_rss": memory()["VmHWM"],
                "peak_anonymous": peak[0],
                "cpu": spent.user + spent.system,
                "report": report,
            },
            default=vars,
        )
    )


if __name__ == "__main__":
    main()
