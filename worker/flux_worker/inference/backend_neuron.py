"""The backend `neuron`: optimum-neuron's FLUX pipeline on NeuronCores, compiled before for fixed sizes.

Experimental: written by optimum-neuron's documentation and source, not run on Neuron hardware yet.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..errors import ConfigurationError, InvalidJob
from ..jobspec.job import Job
from ..model_facts import GIB
from ..settings import ModelSettings
from . import capacity, library_logging, neuron_artifacts
from .backend import Report
from .checkpoint import Checkpoint
from .compilation import Shape
from .memory import available_ram
from .neuron_artifacts import CORES, Facts

EXPERIMENTAL = "the backend neuron is experimental: it has not run on Neuron hardware yet"

CORES_PER_DEVICE = 2  # NeuronCore-v2: inf2 and trn1
BYTES_PER_CORE = 16 * GIB

_DEV = Path("/dev")
_Result = TypeVar("_Result")


def devices() -> int:
    """How many Neuron devices the driver shows."""
    return sum(1 for file in _DEV.glob("neuron*") if re.fullmatch(r"neuron\d+", file.name))


def installed() -> bool:
    """Whether optimum-neuron is there, which one environment has and the other has not."""
    return bool(importlib.util.find_spec("optimum"))


@dataclass(frozen=True)
class Verdict:
    """Whether all that is compiled fits; bytes. The weights are there once for each size."""

    devices: int
    cores_needed: int
    memory: int
    memory_needed: int
    ram_available: int
    ram_needed: int

    @property
    def fits(self) -> bool:
        """Nothing is too small."""
        return (
            self.cores_needed <= self.devices * CORES_PER_DEVICE
            and self.memory_needed <= self.memory
            and self.ram_needed <= self.ram_available
        )

    def arithmetic(self) -> list[str]:
        """The arithmetic, a line each."""
        return [
            f"{self.cores_needed} NeuronCores of {self.devices * CORES_PER_DEVICE}"
            f" ({self.devices} devices of {CORES_PER_DEVICE})",
            f"{self.memory_needed / GIB:.1f} of {self.memory / GIB:.1f} GiB on those cores",
            f"RAM {self.ram_needed / GIB:.1f} to load of {self.ram_available / GIB:.1f} GiB available",
        ]


class NeuronModel:
    """One pipeline for each size that was compiled."""

    def __init__(self, pipelines: dict[Shape, Any]) -> None:
        self._pipelines = pipelines
        self.pipeline = next(iter(pipelines.values()))  # all read prompts alike

    def check(self, job: Job) -> None:
        """Raise InvalidJob for a size that was not compiled; the pipeline would draw another in silence."""
        if Shape.of(job) not in self._pipelines:
            held = ", ".join(map(str, sorted(self._pipelines)))
            reason = f"width, height: {Shape.of(job)} is not compiled for Neuron here, only {held}"
            raise InvalidJob(reason, job_id=job.id)

    def run(self, job: Job, generate: Callable[[Any], _Result]) -> _Result:
        """Call `drawing` with the pipeline of the job's size."""
        self.check(job)
        return generate(self._pipelines[Shape.of(job)])

    def warm_up(self) -> list[Shape]:
        """Each size once: its parts are put onto the cores by that."""
        return sorted(self._pipelines)


class NeuronBackend:
    """The NeuronCores of this machine, and what was compiled for them in `folder`."""

    name: Literal["neuron"] = "neuron"
    libraries = neuron_artifacts.LIBRARIES

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def check_packages(self) -> None:
        """Raise ConfigurationError unless optimum-neuron, the Neuron SDK and accelerate are installed."""
        neuron_artifacts.versions()
        if not importlib.util.find_spec("accelerate"):
            raise ConfigurationError("accelerate is missing: pip install accelerate")

    def require(self, checkpoint: Checkpoint) -> None:
        """Raise ConfigurationError, with the sums, where nothing is compiled or it does not fit."""
        verdict = self._verdict(checkpoint)
        if not verdict.fits:
            raise ConfigurationError(
                f"FLUX.1-dev does not fit these Neuron devices: {'; '.join(verdict.arithmetic())}\n"
                "inf2.24xlarge and inf2.48xlarge hold it; each compiled size takes the weights once more"
            )

    def report(self, checkpoint: Checkpoint) -> Report:
        """What is compiled, and whether it fits."""
        verdict = self._verdict(checkpoint)
        shapes = sorted(facts.shape for facts in self._compiled(checkpoint).values())
        lines = [
            f"model       {checkpoint.folder}",
            f"            commit {checkpoint.revision}, {checkpoint.precision}",
            f"compiled    {', '.join(map(str, shapes))}",
            f"neuron      {'fits' if verdict.fits else 'does not fit'}",
            *(f"            {line}" for line in verdict.arithmetic()),
            f"            {EXPERIMENTAL}",
        ]
        facts = asdict(verdict) | {"fits": verdict.fits, "shapes": [asdict(shape) for shape in shapes]}
        model = {"folder": str(checkpoint.folder), "revision": checkpoint.revision}
        return Report(verdict.fits, lines, {"model": model, "neuron": facts})

    def load(self, checkpoint: Checkpoint, settings: ModelSettings, *, compile_missing: bool) -> NeuronModel:
        """Load every size; `compile_missing` is torch's compiler's, and `flux-worker compile` is Neuron's."""
        compiled = self._compiled(checkpoint)
        return NeuronModel({facts.shape: _load(folder, facts) for folder, facts in compiled.items()})

    def finish_step(self) -> None:
        """Nothing to wait for: a step's result is back in the host's memory when it ends."""

    def free_memory(self) -> None:
        """Nothing to give back: what a device holds was laid out when the model was compiled."""

    def is_fatal(self, error: Exception) -> bool:
        """Whether the Neuron runtime failed: its cores stay with this process until it ends."""
        return isinstance(error, RuntimeError) and bool(re.search(r"\bnrt|neuron", str(error), re.I))

    def _compiled(self, checkpoint: Checkpoint) -> dict[Path, Facts]:
        return neuron_artifacts.find(self._folder, checkpoint.revision)

    def _verdict(self, checkpoint: Checkpoint) -> Verdict:
        if checkpoint.precision != "bf16":
            raise ConfigurationError("int8 checkpoints are for CUDA and the CPU: unset FLUX_MODEL_DIR")
        weights = checkpoint.weights()
        size = sum(weights.values())
        each = size + capacity.working_bytes(size, "bf16")
        return Verdict(
            devices=devices(),
            cores_needed=CORES,
            memory=min(CORES, devices() * CORES_PER_DEVICE) * BYTES_PER_CORE,
            memory_needed=each * len(self._compiled(checkpoint)),
            ram_available=available_ram(),
            ram_needed=max(weights.values()),
        )


def _load(folder: Path, facts: Facts) -> Any:
    library_logging.reduce_logging()
    from optimum.neuron import NeuronFluxPipeline

    try:
        pipeline = NeuronFluxPipeline.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigurationError(f"{folder} cannot be loaded: {error}") from error
    fixed = pipeline.transformer.config.neuron
    pixels = pipeline.vae_scale_factor
    size = (fixed["static_width"] * pixels, fixed["static_height"] * pixels)
    if size != (facts.width, facts.height):
        raise ConfigurationError(f"{folder} draws {size[0]}x{size[1]}, and was to draw {facts.shape}")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
