"""What the worker costs: import and load time, host memory while loading, seconds a step, VRAM.

    PYTHONPATH=worker python3 tests/bench/bench_worker.py                 # a tiny FLUX on the CPU
    PYTHONPATH=worker python3 tests/bench/bench_worker.py --device cuda   # FLUX.1-dev's true shape

`--device cuda` writes 34 GB into --folder. Weights are random: the pictures mean nothing, the figures do.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REVISION = "0" * 40
MIB = 1024**2


def host_memory() -> dict[str, float]:
    """This process's memory by the kernel's count, in MiB: anonymous, mapped from files, peak of both."""
    status = Path("/proc/self/status").read_text()
    names = {"anonymous": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}
    return {key: int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for key, name in names.items()}  # type: ignore[index]


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what:<44}{time.monotonic() - started:9.2f} s", flush=True)


def write_model(cache: Path, device: str) -> None:
    """Lay a random model out as huggingface_hub's cache would."""
    from random_flux import DEV, TINY, build

    snapshot = cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / REVISION
    build(snapshot, DEV if device == "cuda" else TINY)
    size = sum(file.stat().st_size for file in snapshot.rglob("*") if file.is_file())
    print(f"{'model on disk':<44}{size / 1e9:9.3f} GB")


def measure_load(cache: Path, device: str) -> Any:
    from flux_worker.model import load
    from flux_worker.settings import ModelSettings

    settings = ModelSettings.from_environment({"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(cache)})
    import diffusers  # noqa: F401  (its import is timed elsewhere, and is no part of loading)
    import transformers  # noqa: F401

    before = host_memory()
    with timed("load"):
        model = load(settings)
    after = host_memory()
    if model.device != device:
        sys.exit(f"asked for {device}, the worker chose {model.device}")
    for kind, amount in after.items():
        print(f"{'host memory, ' + kind + ', growth while loading':<44}{amount - before[kind]:9.1f} MiB")
    with timed("warm-up"):
        model.warm_up()
    return model


def measure_draw(model: Any, side: int, steps: int) -> None:
    import torch
    from flux_worker.job import Job

    if model.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ends: list[float] = []

    def step_done(_: int) -> None:
        if model.device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.monotonic())

    job = Job(id="bench", prompt="a photo of a cat on a roof", width=side, height=side, steps=steps, seed=7)
    drawing = model.draw(job, step_done)
    a_step = (ends[-1] - ends[0]) / (len(ends) - 1)
    print(f"{side}x{side}, {steps} steps: {drawing.seconds:.2f} s an image, {a_step:.4f} s a step", end="")
    if model.device == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        print(f", VRAM peak {allocated / MIB:.0f} MiB allocated, {reserved / MIB:.0f} MiB reserved", end="")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--folder", type=Path, help="where the model is written; kept, and used again if it is there"
    )
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sys.path.insert(0, str(Path(__file__).parent))

    with timed("`flux-worker --help`"):
        subprocess.run(
            [sys.executable, "-m", "flux_worker.cli", "--help"], check=True, stdout=subprocess.DEVNULL
        )
    with timed("import torch, diffusers' FluxPipeline"):
        from diffusers import FluxPipeline  # noqa: F401

    folder = options.folder or Path(tempfile.mkdtemp(prefix="bench-worker-"))
    try:
        with timed("write random weights"):
            if not (folder / "models--black-forest-labs--FLUX.1-dev").exists():
                write_model(folder, options.device)
        model = measure_load(folder, options.device)
        sizes = [(1024, 28), (1024, 28), (1440, 28)] if options.device == "cuda" else [(256, 4), (1024, 4)]
        for side, steps in sizes:
            measure_draw(model, side, steps)
        print(f"{'host memory, peak':<44}{host_memory()['peak']:9.1f} MiB")
    finally:
        if not options.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
