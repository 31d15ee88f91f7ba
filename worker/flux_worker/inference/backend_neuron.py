"""The backend `neuron`: optimum-neuron's FLUX pipeline on NeuronCores, compiled for fixed image sizes.

Experimental: written from optimum-neuron's documentation and source, not run on Neuron hardware yet.
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
from .streaming.report import StreamReport

EXPERIMENTAL = "the backend neuron is experimental: it has not run on Neuron hardware yet"

CORES_PER_DEVICE = 2  # NeuronCore-v2: inf2 and trn1
BYTES_PER_CORE = 16 * GIB

_DEV = Path("/dev")
_Result = TypeVar("_Result")


def devices() -> int:
    """The number of Neuron devices that the driver shows."""
    return sum(1 for file in _DEV.glob("neuron*") if re.fullmatch(r"neuron\d+", file.name))


def installed() -> bool:
    """Whether optimum-neuron is installed, which only Neuron's environment has."""
    return bool(importlib.util.find_spec("optimum"))


@dataclass(frozen=True)
class Verdict:
    """Whether all compiled sizes fit, each with its own copy of the weights; in bytes."""

    devices: int
    cores_needed: int
    memory: int
    memory_needed: int
    ram_available: int
    ram_needed: int

    @property
    def fits(self) -> bool:
        """Whether everything is large enough."""
        return (
            self.cores_needed <= self.devices * CORES_PER_DEVICE
            and self.memory_needed <= self.memory
            and self.ram_needed <= self.ram_available
        )

    def arithmetic(self) -> list[str]:
        """The arithmetic, line by line."""
        return [
            f"{self.cores_needed} NeuronCores of {self.devices * CORES_PER_DEVICE}"
            f" ({self.devices} devices of {CORES_PER_DEVICE})",
            f"{self.memory_needed / GIB:.1f} of {self.memory / GIB:.1f} GiB on those cores",
            f"RAM {self.ram_needed / GIB:.1f} to load of {self.ram_available / GIB:.1f} GiB available",
        ]


class NeuronModel:
    """One pipeline for each compiled size."""

    streamed: StreamReport | None = None

    def __init__(self, pipelines: dict[Shape, Any]) -> None:
        self._pipelines = pipelines
        self.pipeline = next(iter(pipelines.values()))  # all have the same tokenizers

    def check(self, job: Job) -> None:
        """Raise InvalidJob for a size that is not compiled; the pipeline would silently use another."""
        if Shape.of(job) not in self._pipelines:
            held = ", ".join(map(str, sorted(self._pipelines)))
            reason = f"width, height: {Shape.of(job)} is not compiled for Neuron here, only {held}"
            raise InvalidJob(reason, job_id=job.id)

    def run(self, job: Job, generate: Callable[[Any], _Result]) -> _Result:
        """Call `generate` with the pipeline of the job's size."""
        self.check(job)
        return generate(self._pipelines[Shape.of(job)])

    def warm_up(self) -> list[Shape]:
        """Every size once, which loads its parts onto the cores."""
        return sorted(self._pipelines)


class NeuronBackend:
    """The NeuronCores of this machine, and the models compiled for them in `folder`."""

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
        """Raise ConfigurationError, with the arithmetic, if nothing is compiled or it does not fit."""
        verdict = self._verdict(checkpoint)
        if not verdict.fits:
            raise ConfigurationError(
                f"FLUX.1-dev does not fit these Neuron devices: {'; '.join(verdict.arithmetic())}\n"
                "inf2.24xlarge and inf2.48xlarge hold it; each compiled size has its own weights"
            )

    def report(self, checkpoint: Checkpoint) -> Report:
        """The compiled sizes, and whether they fit."""
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

    def load(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        *,
        compile_missing: bool,
        on_read: Callable[[int], None],
    ) -> NeuronModel:
        """Load every compiled size; `compile_missing` is for torch only, Neuron has `flux-worker compile`."""
        compiled = self._compiled(checkpoint)
        return NeuronModel({facts.shape: _load(folder, facts) for folder, facts in compiled.items()})

    def finish_step(self) -> None:
        """Nothing to wait for: a step ends with its result in the host's memory."""

    def free_memory(self) -> None:
        """Nothing to release: the compiler laid out the device's memory."""

    def is_fatal(self, error: Exception) -> bool:
        """Whether the Neuron runtime failed, which keeps its cores until this process ends."""
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
        raise ConfigurationError(f"{folder} is compiled for {size[0]}x{size[1]}, expected {facts.shape}")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
