"""Make the int8 checkpoint on the builder, and compare one image of it with bfloat16's.

Runs under the worker's Python and does the worker's own work: quantize.py SOURCE TARGET PICTURES DEVICE
RANGES, where SOURCE is the snapshot in the Hugging Face cache, TARGET the new folder, PICTURES the folder for
both images, DEVICE cuda or cpu, and RANGES the file for the hashes of the checkpoint's ranges. Prints one
JSON object a line on stdout:

  {"event": "progress", "done", "total"}                   bytes of the source
  {"event": "quantized", "bytes", "seconds", "peak_ram"}   peak_ram: bytes without mapped files
  {"event": "drawing", "precision", "device", "step", "steps"}
  {"event": "compared", "psnr", "seconds"}                 dB; null where no pixel differs
  {"event": "refused", "reason"}                           and exit code 1
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The libraries' own caches go with the bake's tools, not into root's home; both are read at their import.
os.environ |= {"HOME": str(Path(__file__).with_name("home")), "HF_HUB_OFFLINE": "1"}

from flux_worker.errors import ConfigurationError, WorkerError
from flux_worker.inference import library_logging
from flux_worker.inference.checkpoint import commit_of
from flux_worker.inference.images import GeneratedImages, Origin
from flux_worker.inference.memory import anonymous_ram
from flux_worker.inference.streaming.manifest import Manifest
from flux_worker.jobspec.job import Job
from flux_worker.settings import MODEL, ModelSettings

COMPARISON = "comparison.json"
# Few and small: where bfloat16 does not fit the GPU, each step reads 24 GB anew.
JOB = Job(id="comparison", prompt="a lighthouse at dawn", width=256, height=256, steps=2, seed=7)


def tell(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def make_checkpoint(source: Path, target: Path, ranges: Path) -> None:
    """Make the checkpoint, and hash its ranges; report progress twice a second."""
    from flux_worker.inference.quantize import quantize

    started = time.monotonic()
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > 0.5:
            told = time.monotonic()
            tell("progress", done=done, total=total)

    with peak_ram() as peak:
        made = quantize(source, target, progress)
    weights = {name: file.sha256 for name, file in made.outputs.items() if name.endswith(".safetensors")}
    Manifest.of(target, weights).write(ranges)
    size = sum(file.bytes for file in made.outputs.values())
    tell("quantized", bytes=size, seconds=round(time.monotonic() - started, 1), peak_ram=peak[0])


@contextmanager
def peak_ram() -> Iterator[list[int]]:
    """Measure this process's peak RAM without mapped files, in bytes, twenty times a second."""
    seen, end = [anonymous_ram()], threading.Event()

    def look() -> None:
        while not end.wait(0.05):
            seen[0] = max(seen[0], anonymous_ram())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        end.set()
        watcher.join()


def require(device: str) -> None:
    """Raise ConfigurationError if the GPU can't be used; the CPU would take hours."""
    from flux_worker.inference import devices

    if device == "cuda" and not devices.has_gpu():
        raise ConfigurationError(
            f"torch finds no GPU on the builder, whose type has one: {devices.describe_gpu()}"
        )


def drawn_in_bf16(source: Path, device: str) -> GeneratedImages:
    """What the source draws, layer by layer: neither the GPU of an int8 image nor the host's memory holds it.

    Weights stay mapped from the files; each layer's come to the device while it computes. The worker refuses
    a model that is set up so, and is right: every step moves the whole of it.
    """
    import accelerate
    import torch

    library_logging.reduce_logging()
    import diffusers

    library_logging.disable_progress_bars()
    pipeline = diffusers.FluxPipeline.from_pretrained(
        source, dtype=torch.bfloat16, low_cpu_mem_usage=True, local_files_only=True, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            accelerate.cpu_offload(part, torch.device(device))
    from flux_worker.inference.backend_torch import TorchBackend, TorchModel
    from flux_worker.inference.model import FluxModel

    origin = Origin(MODEL, commit_of(source), "bf16", device)
    return draw(FluxModel(TorchModel(pipeline, device), TorchBackend(device), origin))


def drawn_in_int8(source: Path, target: Path, device: str) -> GeneratedImages:
    """What the checkpoint draws, loaded as the worker loads it."""
    import torch

    from flux_worker.inference.model import load

    # On 24 GB int8 fits by a hair, and only on a GPU that holds nothing of bfloat16 any more.
    gc.collect()
    torch.cuda.empty_cache()
    revision = commit_of(source)
    return draw(load(ModelSettings(FLUX_MODEL_REVISION=revision, FLUX_MODEL_DIR=target, FLUX_BACKEND=device)))


def draw(model: Any) -> GeneratedImages:
    origin = model.origin
    facts = {"precision": origin.precision, "device": origin.device, "steps": JOB.steps}
    tell("drawing", step=0, **facts)
    drawing: GeneratedImages = model.generate(JOB, lambda step: tell("drawing", step=step, **facts))
    return drawing


def compare(source: Path, target: Path, pictures: Path, device: str) -> None:
    """Draw one image with each, keep both, and leave what came of it in the checkpoint."""
    from flux_worker.inference.quantize import psnr

    started = time.monotonic()
    pictures.mkdir(exist_ok=True)
    drawings = [drawn_in_bf16(source, device), drawn_in_int8(source, target, device)]
    for drawing in drawings:
        drawing.images[0].save(pictures / f"{drawing.origin.precision}.png")
    ratio = psnr(*(drawing.images[0] for drawing in drawings))
    found = None if ratio == float("inf") else round(ratio, 2)
    record = {
        "psnr": found,
        "job": JOB.parameters(),
        "drawn_on": {drawing.origin.precision: drawing.origin.device for drawing in drawings},
        "seconds": {drawing.origin.precision: round(drawing.seconds, 1) for drawing in drawings},
        "versions": drawings[1].origin.versions,
    }
    (target / COMPARISON).write_text(json.dumps(record, indent=2) + "\n")
    tell("compared", psnr=found, seconds=round(time.monotonic() - started, 1))


def main() -> int:
    source, target, pictures = map(Path, sys.argv[1:4])
    device, ranges = sys.argv[4], Path(sys.argv[5])
    try:
        require(device)
        make_checkpoint(source, target, ranges)
        compare(source, target, pictures, device)
    except WorkerError as error:
        tell("refused", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
