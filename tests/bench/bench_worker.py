"""What the worker costs against plain diffusers: loading, host memory, VRAM, seconds a step and an image.

    PYTHONPATH=worker python3 tests/bench/bench_worker.py                 # the tiny FLUX on the CPU
    PYTHONPATH=worker python3 tests/bench/bench_worker.py --shape part --load-only   # 4 GB of weights
    PYTHONPATH=worker python3 tests/bench/bench_worker.py --device cuda   # FLUX.1-dev's true shape

Prints Markdown tables: ways of drawing (eager, compiled, int8, fp8), and the load by each path. Without a
GPU `--device cuda` says "not measured" in each row, and measures on the CPU what can be. The true shape needs
55 GB of disk. On a GPU each way of drawing runs twice, with the allocator held to 22,888 and to 45,776 MiB.
Weights are random: the pictures mean nothing, the figures do, but for the PSNR of int8 against bfloat16,
which is that of random weights. Each row is a process of its own that has loaded a tiny model before: what
imports take is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REVISION = "0" * 40
MIB = 1 << 20
CAPS_MIB = (22_888, 45_776)  # A10G and L4, L40S, as EC2 reports them
SHAPES = {"tiny": (256, 4), "part": (256, 2), "dev": (1024, 28)}  # a picture's side in pixels, and steps
PART = {"double_blocks": 2, "single_blocks": 4, "t5_blocks": 2}
WAYS = ("diffusers bf16", "bf16", "int8", "bf16 compiled", "int8 compiled", "fp8", "fp8 compiled")
GPU_ONLY = ("compiled", "fp8")
NO_FP8 = "not measured: fp8 needs a GPU of compute capability 8.9 or newer"


def snapshot(cache: Path) -> Path:
    """Where huggingface_hub would put the model."""
    return cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / REVISION


def size_of(model: Path) -> int:
    """Bytes of a model's weights."""
    return sum(file.stat().st_size for file in model.glob("*/*.safetensors"))


def build(folder: Path, shape: str) -> None:
    """Write the model, and the tiny one that each row loads first, unless they are there."""
    from bake.localcloud.hub import tiny_flux

    if not snapshot(folder / "tiny").exists():
        tiny_flux.build(snapshot(folder / "tiny"))
    if shape != "tiny" and not snapshot(folder / shape).exists():
        import random_flux

        random_flux.build(snapshot(folder / shape), **(PART if shape == "part" else {}))


@contextmanager
def sampled_peak() -> Iterator[list[int]]:
    """The highest anonymous memory of this process inside the block, looked at every 5 ms; bytes."""
    from flux_worker.inference.memory import anonymous_ram

    peak, done = [anonymous_ram()], threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_ram())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], anonymous_ram())


def quantize(folder: Path, shape: str) -> dict[str, float]:
    """Make the int8 checkpoints; figures of the larger one."""
    from flux_worker.inference.memory import anonymous_ram
    from flux_worker.inference.quantize import quantize

    for name in dict.fromkeys(["tiny", shape]):
        source, target = snapshot(folder / name), folder / f"{name}-int8"
        if target.exists():
            continue
        before, started = anonymous_ram(), time.monotonic()
        with sampled_peak() as peak:
            quantize(source, target)
        figures = {"seconds": time.monotonic() - started, "peak": peak[0], "growth": peak[0] - before}
        figures |= {"source": size_of(source), "target": size_of(target)}
        (folder / f"{name}-int8.json").write_text(json.dumps(figures))
    found: dict[str, float] = json.loads((folder / f"{shape}-int8.json").read_text())
    return found


def measure_way(folder: Path, shape: str, way: str, cap_mib: int | None, load_only: bool) -> dict[str, Any]:
    """One row: load the tiny model, then the true one, and draw with it."""
    import torch

    from flux_worker.inference.memory import anonymous_ram

    if cap_mib:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(cap_mib * MIB / total)
    load(folder, "tiny", way.removesuffix(" compiled"))
    before, started = anonymous_ram(), time.monotonic()
    with sampled_peak() as peak:
        drawing = load(folder, shape, way)
    loaded = time.monotonic() - started
    weights = size_of(folder / f"{shape}-int8" if "int8" in way else snapshot(folder / shape))
    row: dict[str, Any] = {
        "load": loaded,
        "weights": weights,
        "grown": anonymous_ram() - before,
        "peak": peak[0] - before,
    }
    return row if load_only else row | time_drawing(drawing, folder / f"{way.replace(' ', '-')}.png", shape)


def time_drawing(drawing: Any, file: Path, shape: str) -> dict[str, Any]:
    """Seconds and VRAM of one picture, after a short one that sets everything up."""
    import torch

    side, steps = SHAPES[shape]
    started = time.monotonic()
    drawing(side, 2)  # compiles, where that is the way, and sets up kernels and memory
    first = time.monotonic() - started
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    image = drawing(side, steps)
    row: dict[str, Any] = {"first": first, "image": time.monotonic() - started, "steps": steps}
    if torch.cuda.is_available():
        row["vram"] = torch.cuda.max_memory_reserved()
    image.save(file)
    return row


def load(folder: Path, shape: str, way: str) -> Any:
    """A function of side and steps that draws one image in this way."""
    if way.startswith(("diffusers", "fp8")):
        return plain_diffusers(snapshot(folder / shape), way)
    from flux_worker.inference.model import load as load_model
    from flux_worker.jobspec.job import Job
    from flux_worker.settings import ModelSettings

    environment = environment_of(folder, shape, way)
    if "compiled" in way:
        environment |= {"FLUX_COMPILE": "regional", "FLUX_COMPILE_CACHE": str(folder / "compiled")}
    model = load_model(ModelSettings.from_environment(environment), compile_missing=True)
    return lambda side, steps: model.generate(
        Job(id="bench", prompt="a photo of a cat on a roof", width=side, height=side, steps=steps, seed=7)
    ).images[0]


def environment_of(folder: Path, shape: str, way: str) -> dict[str, str]:
    """The worker's settings for a way of drawing or a precision."""
    import torch

    environment = {"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(folder / shape)}
    environment["FLUX_BACKEND"] = "cuda" if torch.cuda.is_available() else "cpu"
    if "int8" in way:
        environment["FLUX_MODEL_DIR"] = str(folder / f"{shape}-int8")
    return environment


def plain_diffusers(model: Path, way: str) -> Any:
    """What the documentation of diffusers shows, without anything of the worker, which has no fp8 yet."""
    import torch
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(model, dtype=torch.bfloat16)
    if "fp8" in way:
        if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
            sys.exit(NO_FP8)
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, quantize_

        quantize_(pipeline.transformer, Float8DynamicActivationFloat8WeightConfig(), device="cuda")
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    if "compiled" in way:
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
    return lambda side, steps: pipeline(
        prompt="a photo of a cat on a roof",
        width=side,
        height=side,
        num_inference_steps=steps,
        generator=torch.Generator("cpu").manual_seed(7),
        max_sequence_length=512,
    ).images[0]


def measure_load(options: argparse.Namespace) -> dict[str, Any]:
    """One row of the second table: load by a path, in a precision."""
    import load_paths

    path, precision = options.row.removeprefix("load ").split(", ")
    model = snapshot(options.folder / options.shape)
    if precision == "int8":
        model = options.folder / f"{options.shape}-int8"
    load(options.folder, "tiny", precision)  # what imports take is not counted
    try:
        settings = environment_of(options.folder, options.shape, precision)
        return load_paths.measure(settings, model, path, options.stream)
    except load_paths.NotMeasured as why:
        return {"failed": f"not measured: {why}"}


def print_loads(options: argparse.Namespace) -> None:
    """The load by each path."""
    import load_paths

    print(f"\n{load_paths.HEADER}", flush=True)
    for precision in ("bf16", "int8"):
        model = options.folder / f"{options.shape}-int8"
        weights = size_of(model if precision == "int8" else snapshot(options.folder / options.shape))
        for path in load_paths.PATHS:
            row = in_a_process(options, f"load {path}, {precision}", None)
            print(load_paths.line(path, precision, weights, row), flush=True)


def say_not_measured() -> None:
    """The tables without a GPU: each row, and nothing in it."""
    import load_paths

    print("No GPU is at hand: on a GPU not measured.\n")
    print(HEADER)
    for way in WAYS:
        for cap in CAPS_MIB:
            print(f"| {way} | {cap:,} |" + " not measured |" * 6)
    print(f"\n{load_paths.HEADER}")
    for precision in ("bf16", "int8"):
        for path in load_paths.PATHS:
            print(f"| {path} | {precision} |" + " not measured |" * 4)
    print("\nOn the CPU of this machine:\n", flush=True)


def in_a_process(options: argparse.Namespace, way: str, cap_mib: int | None) -> dict[str, Any]:
    """The row of one way; where it failed, the last line of what it said."""
    command = [
        sys.executable,
        __file__,
        "--folder",
        str(options.folder),
        "--shape",
        options.shape,
        "--row",
        way,
    ]
    command += ["--cap", str(cap_mib)] if cap_mib else []
    command += ["--load-only"] if options.load_only else []
    command += ["--stream", options.stream] if options.stream else []
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return row
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return {"failed": said[-1] if said else f"exit code {done.returncode}"}


HEADER = (
    "| way | held to MiB | load s | host RAM while loading, MiB (of weights) | first draw s | s a step |"
    " s an image | VRAM peak MiB |\n|---|---|---|---|---|---|---|---|"
)


def print_rows(options: argparse.Namespace, ways: list[str]) -> None:
    """The table, a row as soon as it is measured."""
    print(HEADER, flush=True)
    for way in ways:
        for cap in CAPS_MIB if options.device == "cuda" else (None,):
            row = in_a_process(options, way, cap)
            held = f"{cap:,}" if cap else "–"
            if "failed" in row:
                print(f"| {way} | {held} | {row['failed'][:200]} | | | | | |", flush=True)
                continue
            ram = f"{row['peak'] / MIB:.0f} ({row['peak'] / row['weights']:.2%})"
            vram = f"{row['vram'] / MIB:,.0f}" if "vram" in row else "–"
            print(f"| {way} | {held} | {row['load']:.1f} | {ram} | ", end="")
            if "image" not in row:
                print("– | – | – | – |", flush=True)
                continue
            step = row["image"] / row["steps"]
            print(f"{row['first']:.1f} | {step:.3f} | {row['image']:.2f} | {vram} |", flush=True)


def print_psnr(folder: Path) -> None:
    """How far int8 is from bfloat16, where both were drawn."""
    from PIL import Image

    from flux_worker.inference.quantize import psnr

    first, second = folder / "bf16.png", folder / "int8.png"
    if first.exists() and second.exists():
        print(
            f"\nint8 against bf16, the same seed: PSNR {psnr(Image.open(first), Image.open(second)):.1f} dB"
        )


def describe(options: argparse.Namespace) -> None:
    """Where and when the figures were taken, and of what size of model."""
    import diffusers
    import torch
    import transformers

    versions = ", ".join(
        f"{library.__name__} {library.__version__}" for library in (torch, diffusers, transformers)
    )
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores"
    side, steps = SHAPES[options.shape]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {name}; {versions}")
    weights = size_of(snapshot(options.folder / options.shape)) / 1e9
    print(f"{weights:.2f} GB of weights in bf16; {side}x{side}, {steps} steps\n", flush=True)


def measure(options: argparse.Namespace) -> None:
    """Build what is missing, then print everything."""
    build(options.folder, options.shape)
    describe(options)
    made = in_a_process(options, "quantize", None)
    if "failed" in made:
        sys.exit(made["failed"])
    print(
        f"quantize: {made['seconds']:.0f} s, peak of anonymous host RAM {made['peak'] / MIB:,.0f} MiB for "
        f"{made['source'] / MIB:,.0f} MiB of weights, which become {made['target'] / MIB:,.0f} MiB\n"
    )
    gpu = options.device == "cuda"
    here = [way for way in WAYS if gpu or not any(word in way for word in GPU_ONLY)]
    print_rows(options, options.way or here)
    print_psnr(options.folder)
    print_loads(options)


def has_gpu() -> bool:
    """Whether torch finds one."""
    import torch

    return bool(torch.cuda.is_available())


def main() -> None:
    """Read the options; `--row` and `--cap` are for this program's own processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=list(SHAPES), help="default: tiny on the CPU, dev on a GPU")
    parser.add_argument("--folder", type=Path, help="where models are written; kept, and used again")
    parser.add_argument("--way", action="append", choices=WAYS, help="only this; may be given again")
    parser.add_argument("--load-only", action="store_true", help="do not draw: drawing takes long on a CPU")
    parser.add_argument("--stream", help="s3://bucket/prefix with the weights, for the load by two paths")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--cap", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.row == "quantize":
        print(json.dumps(quantize(options.folder, options.shape)))
    elif options.row and options.row.startswith("load "):
        print(json.dumps(measure_load(options)))
    elif options.row:
        print(
            json.dumps(
                measure_way(options.folder, options.shape, options.row, options.cap, options.load_only)
            )
        )
    else:
        if options.device == "cuda" and not has_gpu():
            say_not_measured()
            options.device = "cpu"
        options.shape = options.shape or ("dev" if options.device == "cuda" else "tiny")
        kept = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory(prefix="bench-")
        with kept as folder:
            options.folder = Path(folder)
            measure(options)


if __name__ == "__main__":
    main()
