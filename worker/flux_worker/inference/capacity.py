"""Compare the memory of this machine with what the model needs, before it is loaded (R-OOM)."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..model_facts import FACTS, GIB
from .checkpoint import Checkpoint, Provenance
from .images import Precision
from .memory import available_ram

LARGEST_AREA = (1440 * 1440) / (1024 * 1024)
"""The largest image's area relative to the measured one; activations grow with the area."""


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device; in bytes. `free` excludes CUDA's context and respects the process's limit."""

    name: str
    capability: str
    total: int
    free: int


@dataclass(frozen=True)
class Machine:
    """The memory that this process can use, in bytes; RAM as available now within its cgroups' limits.

    `workers` share the RAM, and each has a GPU like this one.
    """

    gpu: Gpu | None
    ram_total: int
    ram_available: int
    cores: int
    workers: int = 1

    @property
    def device(self) -> str:
        """The device on which the model is loaded."""
        return "cuda" if self.gpu else "cpu"

    def without_gpu(self) -> Machine:
        """This machine without its GPU, for the CPU backend."""
        return replace(self, gpu=None)


@dataclass(frozen=True)
class Verdict:
    """Whether a precision fits, with the arithmetic in bytes. `short_of` names what is too small.

    `vram_needed` is one worker's, `ram_needed` that of all of them.
    """

    precision: Precision
    weights: int
    working: int
    vram_needed: int
    ram_needed: int
    short_of: tuple[str, ...]
    tile: int | None
    """The side of the VAE's tiles in pixels if VRAM is tight; None: images are decoded whole."""

    @property
    def fits(self) -> bool:
        """Whether everything is large enough."""
        return not self.short_of


def this_machine() -> Machine:
    """This machine, as the driver and the kernel describe it."""
    return Machine(
        gpu=_gpu(),
        ram_total=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        ram_available=available_ram(),
        cores=len(os.sched_getaffinity(0)),
    )


def _gpu() -> Gpu | None:
    import torch

    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    allowed = torch.cuda.get_per_process_memory_fraction() * total - torch.cuda.memory_reserved()
    capability = "sm{}{}".format(*torch.cuda.get_device_capability())
    return Gpu(torch.cuda.get_device_name(), capability, total, min(free, int(allowed)))


def assess(machine: Machine, weights: dict[str, int], precision: Precision) -> Verdict:
    """Compare a machine with the model; `weights` are the components' bytes in this precision."""
    size = sum(weights.values())
    working = working_bytes(size, precision)
    ram_needed = machine.workers * (loading_bytes(size) + (0 if machine.gpu else working))
    vram_needed = size + working if machine.gpu else 0
    short = []
    if machine.gpu and vram_needed > machine.gpu.free:
        short.append("VRAM")
    if ram_needed > machine.ram_available:
        short.append("RAM")
    tile = _tile(machine.gpu.free - size, working) if machine.gpu else None
    return Verdict(precision, size, working, vram_needed, ram_needed, tuple(short), tile)


def loading_bytes(size: int) -> int:
    """Anonymous host memory while weights of this size are loaded, without the weights themselves."""
    return round(FACTS.loading_share * size)


def working_bytes(size: int, precision: Precision) -> int:
    """Activations, VAE and allocator slack at 1024 x 1024, for weights of this size.

    Models smaller than FLUX.1-dev, as in tests, need proportionally less.
    """
    known = sum(FACTS.weights(precision).values())
    return round(FACTS.working_bytes(precision) * min(1.0, size / known))


def in_precision(bf16: dict[str, int], precision: Precision) -> dict[str, int]:
    """The components' bytes in a precision, from those in bfloat16, by FLUX.1-dev's ratios."""
    before, after = FACTS.weights("bf16"), FACTS.weights(precision)
    return {name: size * after.get(name, 1) // before.get(name, 1) for name, size in bf16.items()}


def _tile(left: int, working: int) -> int | None:
    """None if even the largest image can be decoded whole; small tiles if 1024 x 1024 leaves little."""
    if left >= working * LARGEST_AREA:
        return None
    return 1024 if left >= working + GIB else 512


def assess_both(machine: Machine, checkpoint: Checkpoint) -> dict[Precision, Verdict]:
    """Both precisions: the checkpoint's from its files, the other derived from them."""
    held = checkpoint.weights()
    if checkpoint.precision == "bf16":
        sizes: dict[Precision, dict[str, int]] = {"bf16": held, "int8": in_precision(held, "int8")}
    else:
        sizes = {"bf16": _source_sizes(checkpoint), "int8": held}
    return {precision: assess(machine, weights, precision) for precision, weights in sizes.items()}


def _source_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """Components' bytes of the bfloat16 model from which an int8 checkpoint was made."""
    sizes: dict[str, int] = {}
    for name, file in Provenance.read(checkpoint.folder).inputs.items():
        if name.endswith(".safetensors"):
            component = Path(name).parts[0]
            sizes[component] = sizes.get(component, 0) + file.bytes
    return sizes


def no_room_to_stream(machine: Machine, checkpoint: Checkpoint) -> str | None:
    """Why the weights cannot be read into memory, but must stay mapped from the files; None if they can.

    On the CPU each worker then has them for itself, whichever loads first.
    """
    if machine.gpu:
        return None  # they are read into VRAM
    weights = checkpoint.weights()
    verdict = assess(machine, weights, checkpoint.precision)
    one = verdict.weights + verdict.working + loading_bytes(verdict.weights)
    if one <= machine.ram_available and machine.workers * one <= machine.ram_total:
        return None
    needs = [f"{_gib(verdict.weights)} weights", f"{_gib(one - verdict.weights)} to load and draw"]
    return _ram(machine, needs, machine.workers * one)


def tile_side(machine: Machine, checkpoint: Checkpoint) -> int | None:
    """The side of the VAE's tiles in pixels for this checkpoint; None: whole images."""
    return assess(machine, checkpoint.weights(), checkpoint.precision).tile


def require(machine: Machine, checkpoint: Checkpoint) -> None:
    """Raise ConfigurationError, with the arithmetic and advice, if the checkpoint does not fit."""
    both = assess_both(machine, checkpoint)
    verdict = both[checkpoint.precision]
    if not verdict.fits:
        raise ConfigurationError(
            f"FLUX.1-dev in {verdict.precision} does not fit: {arithmetic(machine, verdict)}\n"
            + advice(both, checkpoint)
        )


def arithmetic(machine: Machine, verdict: Verdict) -> str:
    """A verdict's arithmetic in one line."""
    parts = []
    if machine.gpu:
        parts.append(
            f"VRAM {_gib(verdict.weights)} weights + {_gib(verdict.working)} to draw 1024x1024 = "
            f"{_gib(verdict.vram_needed)} of {_gib(machine.gpu.free)} GiB free on {machine.gpu.name}"
        )
        ram = [f"{_gib(loading_bytes(verdict.weights))} to load"]
    else:
        ram = [f"{_gib(loading_bytes(verdict.weights))} to load", f"{_gib(verdict.working)} to draw"]
    parts.append(_ram(machine, ram, verdict.ram_needed))
    return "; ".join(parts)


def _ram(machine: Machine, needs: list[str], whole: int) -> str:
    """Such as "RAM 2 workers x (1.9 to load + 2.5 to draw) = 8.8 of 14.1 GiB available"."""
    text = " + ".join(needs)
    if machine.workers > 1:
        text = f"{machine.workers} workers x ({text})"
    total = f" = {_gib(whole)}" if machine.workers > 1 or len(needs) > 1 else ""
    return f"RAM {text}{total} of {_gib(machine.ram_available)} GiB available"


def advice(both: dict[Precision, Verdict], checkpoint: Checkpoint) -> str:
    """What to do if the configured precision does not fit."""
    if checkpoint.precision == "bf16" and both["int8"].fits:
        return (
            f"int8 fits: flux-worker quantize {checkpoint.folder} DIR, then set FLUX_MODEL_DIR=DIR"
            " (made once, on any machine with the files)"
        )
    if checkpoint.precision == "int8" and both["bf16"].fits:
        return "bf16 fits: unset FLUX_MODEL_DIR"
    return (
        "No precision fits. Free memory, or use a machine with more:"
        f" bf16 needs {_gib(both['bf16'].vram_needed or both['bf16'].ram_needed)} GiB,"
        f" int8 {_gib(both['int8'].vram_needed or both['int8'].ram_needed)} GiB"
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def lines(machine: Machine, checkpoint: Checkpoint, both: dict[Precision, Verdict]) -> list[str]:
    """The output of `flux-worker check`."""
    ram = f"{_gib(machine.ram_available)} of {_gib(machine.ram_total)} GiB RAM available"
    gpu = machine.gpu
    has = (
        f"{gpu.name} ({gpu.capability}), {_gib(gpu.free)} of {_gib(gpu.total)} GiB VRAM free"
        if gpu
        else "no GPU"
    )
    text = [
        f"machine     {has}; {ram}, {machine.cores} CPU cores",
        f"model       {checkpoint.folder}",
        f"            commit {checkpoint.revision}, {checkpoint.precision}",
    ]
    for precision, verdict in both.items():
        answer = "fits" if verdict.fits else f"does not fit: not enough {' and '.join(verdict.short_of)}"
        text += [
            f"{precision:<12}{answer}",
            *(f"            {part}" for part in arithmetic(machine, verdict).split("; ")),
        ]
        if verdict.fits and verdict.tile:
            text.append(
                f"            VRAM is tight: the VAE decodes slices, in tiles of {verdict.tile} pixels"
            )
    if not gpu:
        why = no_room_to_stream(machine, checkpoint)
        text.append(f"            the weights {'stay mapped: ' + why if why else 'are read into RAM'}")
    elif machine.workers > 1 and both[checkpoint.precision].weights > machine.ram_total:
        text.append(
            "            RAM is smaller than the weights: workers that start together share most of what they"
            " read from the disk, one that starts later reads all of it again"
        )
    if not both[checkpoint.precision].fits:
        text.append(advice(both, checkpoint))
    return text


def as_json(machine: Machine, checkpoint: Checkpoint, both: dict[Precision, Verdict]) -> dict[str, Any]:
    """The same as JSON; sizes in bytes."""
    model = {"folder": str(checkpoint.folder), "revision": checkpoint.revision}
    model |= {"precision": checkpoint.precision}
    return {
        "machine": asdict(machine) | {"device": machine.device},
        "model": model,
        **{precision: asdict(verdict) | {"fits": verdict.fits} for precision, verdict in both.items()},
    }
