"""What the worker costs: import and load time, host memory while loading, seconds a step, VRAM.

    PYTHONPATH=worker python3 tests/bench/bench_worker.py                 # the tiny FLUX on the CPU
    PYTHONPATH=worker python3 tests/bench/bench_worker.py --shape part    # a tenth of FLUX.1-dev: minutes
    PYTHONPATH=worker python3 tests/bench/bench_worker.py --device cuda   # FLUX.1-dev's true shape

The true shape needs 34 GB of disk. Weights are random: the pictures mean nothing, the figures do.
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
SIZES = {"tiny": [(256, 4), (1024, 4)], "part": [(256, 2)], "dev": [(1024, 28), (1024, 28), (1440, 28)]}


def host_memory() -> dict[str, float]:
    """This process's memory by the kernel's count, in MiB: anonymous, mapped from files, peak of both."""
    status = Path("/proc/self/status").read_text()
    names = {"anonymous": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}
    return {key: int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for key, name in names.items()}  # type: ignore[index]


def say(what: str, amount: float, unit: str) -> None:
    print(f"{what:<44}{amount:10.2f} {unit}", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    say(what, time.monotonic() - started, "s")


def write_model(cache: Path, shape: str) -> None:
    """Lay a random model out as huggingface_hub's cache would."""
    snapshot = cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / REVISION
    if shape == "tiny":
        from bake.localcloud import tiny_flux

        tiny_flux.build(snapshot)
    else:
        import random_flux

        part = {"double_blocks": 2, "single_blocks": 4, "t5_blocks": 2} if shape == "part" else {}
        random_flux.build(snapshot, **part)
    size = sum(file.stat().st_size for file in snapshot.glob("*/*.safetensors"))
    say("weights", size / MIB, "MiB")


def measure_load(cache: Path, device: str) -> Any:
    from flux_worker.model import load
    from flux_worker.settings import ModelSettings

    settings = ModelSettings.from_environment({"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(cache)})
    before = host_memory()
    with timed("load"):
        model = load(settings)
    after = host_memory()
    if model.device != device:
        sys.exit(f"asked for {device}, the worker chose {model.device}")
    for kind, amount in after.items():
        say(f"host memory, {kind}, growth while loading", amount - before[kind], "MiB")
    with timed("warm-up"):
        model.warm_up()
    return model


def measure_draw(model: Any, side: int, steps: int) -> None:
    import torch

    from flux_worker.job import Job

    cuda = model.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    ends: list[float] = []

    def step_done(_: int) -> None:
        if cuda:
            torch.cuda.synchronize()
        ends.append(time.monotonic())

    job = Job(id="bench", prompt="a photo of a cat on a roof", width=side, height=side, steps=steps, seed=7)
    drawing = model.draw(job, step_done)
    name = f"{side}x{side}, {steps} steps: "
    say(f"{name}an image", drawing.seconds, "s")
    say(f"{name}a step", 1000 * (ends[-1] - ends[0]) / (len(ends) - 1), "ms")
    if cuda:
        say(f"{name}VRAM allocated, peak", torch.cuda.max_memory_allocated() / MIB, "MiB")
        say(f"{name}VRAM reserved, peak", torch.cuda.max_memory_reserved() / MIB, "MiB")


def describe_device(device: str) -> None:
    import diffusers
    import torch
    import transformers

    versions = [f"{library.__name__} {library.__version__}" for library in (torch, diffusers, transformers)]
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores"
    print(f"{name}; {', '.join(versions)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=list(SIZES), help="default: tiny on the CPU, dev on a GPU")
    parser.add_argument(
        "--folder", type=Path, help="where the model is written; kept, and used again if it is there"
    )
    options = parser.parse_args()
    shape = options.shape or ("dev" if options.device == "cuda" else "tiny")
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sys.path.insert(0, str(Path(__file__).parents[2]))

    with timed("`flux-worker --help`"):
        subprocess.run(
            [sys.executable, "-m", "flux_worker.cli", "--help"], check=True, stdout=subprocess.DEVNULL
        )
    with timed("import torch and diffusers' FluxPipeline"):
        from diffusers import FluxPipeline  # noqa: F401
    describe_device(options.device)

    folder = options.folder or Path(tempfile.mkdtemp(prefix="bench-worker-"))
    try:
        if not (folder / "models--black-forest-labs--FLUX.1-dev").exists():
            with timed("write random weights"):
                write_model(folder, shape)
        model = measure_load(folder, options.device)
        for side, steps in SIZES[shape]:
            measure_draw(model, side, steps)
        say("host memory, peak", host_memory()["peak"], "MiB")
    finally:
        if not options.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
