"""FLUX.1-dev, loaded once from local files: bfloat16 or int8, SDPA attention, no offloading, no xformers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import __version__, chatter, fit
from .checkpoint import Checkpoint, find
from .compilation import CompiledBlocks, compiled_blocks
from .drawing import Drawing, Origin
from .errors import ConfigurationError, InvalidJob
from .job import Job
from .settings import MODEL, ModelSettings
from .soundness import assert_on, assert_sound

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

OnStep = Callable[[int], None]
"""Called after each step with the number of steps done, over all images of the job."""

LIBRARIES = ("torch", "diffusers", "transformers", "torchao")


class FluxModel:
    """A loaded pipeline, ready to draw one image at a time."""

    def __init__(
        self, pipeline: Any, *, device: str, origin: Origin, blocks: CompiledBlocks | None = None
    ) -> None:
        self.pipeline = pipeline
        self.device = device
        self.origin = origin
        self._blocks = blocks

    def check(self, job: Job) -> None:
        """Raise InvalidJob where the prompt is longer than the job reads; diffusers would cut it off."""
        tokens = len(self.pipeline.tokenizer_2(job.prompt, verbose=False).input_ids)
        if tokens > job.max_sequence_length:
            reason = f"prompt: {tokens} tokens long, and at most {job.max_sequence_length} are read"
            raise InvalidJob(reason, job_id=job.id)

    def draw(self, job: Job, on_step: OnStep = lambda _: None) -> Drawing:
        """Draw the job's images, one after another: memory stays that of one; image i has seed + i.

        What `on_step` raises ends the drawing and passes through.
        """
        job = job.seeded()
        if self._blocks:
            return self._blocks.draw(job, lambda: self._draw(job, on_step))
        return self._draw(job, on_step)

    def _draw(self, job: Job, on_step: OnStep) -> Drawing:
        clock = _StepClock(on_step)
        images = tuple(self._image(job, number, clock) for number in range(job.images))
        seconds = time.monotonic() - clock.started
        step = clock.step_seconds(seconds)
        return Drawing(job=job, images=images, origin=self.origin, seconds=seconds, step_seconds=step)

    def _image(self, job: Job, number: int, clock: _StepClock) -> Image:
        assert job.seed is not None
        clock.image_begins()
        result = self.pipeline(
            prompt=job.prompt,
            width=job.width,
            height=job.height,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            # The noise comes from the CPU's generator: a seed starts the same everywhere.
            generator=torch.Generator("cpu").manual_seed(job.seed + number),
            max_sequence_length=job.max_sequence_length,
            callback_on_step_end=clock.step_ended,
            callback_on_step_end_tensor_inputs=[],
        )
        image: Image = result.images[0]
        return image

    @staticmethod
    def broken_by(error: Exception) -> bool:
        """Whether the GPU's context is lost, as after an illegal access; lack of memory is survived."""
        return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)

    def warm_up(self, on_step: OnStep = lambda _: None) -> None:
        """Draw once, so that the first job does not pay for kernels and memory being set up."""
        side = 1024 if self.device == "cuda" else 256
        self.draw(Job(id="warm-up", prompt="a warm-up", width=side, height=side, steps=2, seed=0), on_step)


@dataclass
class _StepClock:
    """Tells of steps, and times them: from one step's end to the next, or an image's first from its begin."""

    on_step: OnStep
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    _last: float = 0.0
    _seconds: list[float] = field(default_factory=list)

    def image_begins(self) -> None:
        """The first step of an image also carries the reading of the prompt: it only counts alone."""
        self._last = 0.0

    def step_ended(
        self, _pipeline: object, _step: int, _timestep: object, _tensors: object
    ) -> dict[str, Any]:
        """diffusers' callback_on_step_end."""
        if torch.cuda.is_available():
            # Kernels run behind the CPU: without this, a step told would be a step queued, a hung GPU would
            # look alive, and a drawing given up would run on.
            torch.cuda.synchronize()
        now = time.monotonic()
        if self._last:
            self._seconds.append(now - self._last)
        self._last = now
        self.done += 1
        self.on_step(self.done)
        return {}

    def step_seconds(self, whole: float) -> float:
        """The mean of a step; images of one step have no interval between steps: they share the whole."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else whole / self.done


def load(settings: ModelSettings, *, compile_missing: bool = False) -> FluxModel:
    """Load the model onto the GPU, or the CPU where there is none.

    Weights are mapped from the files rather than read into memory. Raises ConfigurationError where the model
    is not there or not whole, does not fit, or where the installed packages would not do it justice.
    `compile_missing`: with FLUX_COMPILE=regional, compile what its cache lacks, and keep it there.
    """
    refuse_packages()
    checkpoint = find(settings)
    machine = fit.look()
    fit.require(machine, checkpoint)
    pipeline = _from_files(checkpoint.folder)
    assert_sound(pipeline, checkpoint.precision)
    pipeline.to(machine.device)
    assert_on(pipeline, machine.device)
    _decode_in_tiles(pipeline.vae, fit.tile_side(machine, checkpoint))
    pipeline.set_progress_bar_config(disable=True)
    blocks = None
    if settings.compile == "regional":
        blocks = compiled_blocks(
            pipeline.transformer,
            settings.compile_cache,
            checkpoint.precision,
            machine.device,
            fill=compile_missing,
        )
    origin = _origin(checkpoint, machine.device)
    return FluxModel(pipeline, device=machine.device, origin=origin, blocks=blocks)


def _origin(checkpoint: Checkpoint, device: str) -> Origin:
    versions = {"flux_worker": __version__} | {name: importlib.metadata.version(name) for name in LIBRARIES}
    return Origin(
        repo=MODEL,
        revision=checkpoint.revision,
        precision=checkpoint.precision,
        device=device,
        versions=versions,
    )


def refuse_packages() -> None:
    """Raise ConfigurationError for xformers, which breaks FLUX, and where accelerate is missing."""
    if importlib.util.find_spec("xformers"):
        raise ConfigurationError("xformers is installed, and it breaks FLUX: pip uninstall xformers")
    if not importlib.util.find_spec("accelerate"):
        # diffusers would turn low_cpu_mem_usage off with a mere warning.
        raise ConfigurationError(
            "accelerate is missing, loading would need far more memory: pip install accelerate"
        )


def _from_files(folder: Path) -> Any:
    chatter.quieten()
    import diffusers

    chatter.without_progress_bars()
    try:
        return diffusers.FluxPipeline.from_pretrained(
            folder,
            dtype=torch.bfloat16,
            low_cpu_mem_usage=True,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"The model in {folder} cannot be loaded: {error}") from error
    except Exception as error:  # safetensors has no public base class for a file that is cut short
        if type(error).__name__ != "SafetensorError":
            raise
        raise ConfigurationError(f"The model in {folder} is damaged: {error}") from error


def _decode_in_tiles(vae: Any, side: int | None) -> None:
    """Decode at most `side` pixels square at a time, overlapping by a quarter; None: images whole."""
    if side is None:
        return
    vae.enable_slicing()
    vae.enable_tiling()
    factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent
    vae.tile_sample_min_size = side
    vae.tile_latent_min_size = side // factor
