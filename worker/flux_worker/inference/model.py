"""FLUX.1-dev, loaded once from local files onto the selected backend."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from .. import __version__
from ..errors import InvalidJob
from ..jobspec.job import Job
from ..settings import MODEL, ModelSettings
from .backend import Backend, Loaded
from .checkpoint import Checkpoint, find
from .image_checks import assert_image, checking_decoded
from .images import GeneratedImages, Origin
from .memory import ran_out
from .select_backend import select_backend

if TYPE_CHECKING:
    from PIL.Image import Image

    from .streaming.report import StreamReport

log = logging.getLogger(__name__)

OnStep = Callable[[int], None]
"""Called after each step with the number of steps done over all images of the job. A restarted job counts
from 1 again.
"""


class FluxModel:
    """A loaded model that generates one image at a time."""

    def __init__(self, loaded: Loaded, backend: Backend, origin: Origin) -> None:
        self.origin = origin
        self._loaded = loaded
        self._backend = backend

    @property
    def pipeline(self) -> Any:
        """diffusers' pipeline, or one that behaves like it."""
        return self._loaded.pipeline

    @property
    def streamed(self) -> StreamReport | None:
        """How the weights were read; None if they were mapped."""
        return self._loaded.streamed

    @property
    def device(self) -> str:
        """cuda, cpu or neuron."""
        return self._backend.name

    def check(self, job: Job) -> None:
        """Raise InvalidJob for an unsupported size, and for a prompt that is longer than the job allows;
        diffusers would truncate it.
        """
        self._loaded.check(job)
        tokens = len(self.pipeline.tokenizer_2(job.prompt, verbose=False).input_ids)
        if tokens > job.max_sequence_length:
            reason = f"prompt: has {tokens} tokens, at most {job.max_sequence_length} are allowed"
            raise InvalidJob(reason, job_id=job.id)

    def generate(self, job: Job, on_step: OnStep = lambda _: None) -> GeneratedImages:
        """Generate the job's images one after another, in the memory of one; image i has seed + i.

        If memory runs out, free what is unused and restart the job, once. Exceptions of `on_step` end the job
        and pass through. Raises BadImage for invalid images.
        """
        job = job.seeded()
        try:
            return self._attempt(job, on_step)
        except (MemoryError, RuntimeError) as error:  # CUDA's and PyTorch's are RuntimeErrors
            if not ran_out(error):
                raise
            log.warning("memory ran out, restarting the job: %s", _first_line(error))
        # Outside the except block the error is gone, and with it the frames that kept tensors alive.
        gc.collect()
        self._backend.free_memory()
        return self._attempt(job, on_step)

    def _attempt(self, job: Job, on_step: OnStep) -> GeneratedImages:
        return self._loaded.run(job, lambda pipeline: self._generate(pipeline, job, on_step))

    def _generate(self, pipeline: Any, job: Job, on_step: OnStep) -> GeneratedImages:
        clock = _StepClock(on_step, self._backend.finish_step)
        images = tuple(_image(pipeline, job, number, clock) for number in range(job.images))
        seconds = time.monotonic() - clock.started
        step = clock.step_seconds(seconds)
        return GeneratedImages(job=job, images=images, origin=self.origin, seconds=seconds, step_seconds=step)

    def is_fatal(self, error: Exception) -> bool:
        """Whether this process can no longer use the device after such an error."""
        return self._backend.is_fatal(error)

    def warm_up(self, on_step: OnStep = lambda _: None) -> None:
        """Generate once, so that the first job need not wait for kernels and memory to be set up.

        It also tests the model, at any time. Raises BadImage if the images are invalid.
        """
        for shape in self._loaded.warm_up():
            job = Job(
                id="warm-up",
                prompt="a warm-up",
                width=shape.width,
                height=shape.height,
                max_sequence_length=shape.tokens,
                steps=2,
                seed=0,
            )
            self.generate(job, on_step)


def _image(pipeline: Any, job: Job, number: int, clock: _StepClock) -> Image:
    assert job.seed is not None
    clock.image_begins()
    which = f"image {number + 1} of {job.images}"

    def step_ended(
        _pipeline: object, step: int, _timestep: object, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        clock.step_ended()
        if step == job.steps - 1:
            assert_image(tensors["latents"], (-2,), f"{which}: the last step's latents")
        return {}

    def this_machine(pixels: torch.Tensor) -> None:
        assert_image(pixels, (-2, -1), f"{which}: the pixels that the VAE decoded")

    with checking_decoded(pipeline, this_machine):
        result = pipeline(
            prompt=job.prompt,
            width=job.width,
            height=job.height,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            # The noise comes from the CPU's generator: a seed starts the same everywhere.
            generator=torch.Generator("cpu").manual_seed(job.seed + number),
            max_sequence_length=job.max_sequence_length,
            callback_on_step_end=step_ended,
            callback_on_step_end_tensor_inputs=["latents"],
        )
    image: Image = result.images[0]
    return image


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


@dataclass
class _StepClock:
    """Reports steps and measures the time from each step's end to the next."""

    on_step: OnStep
    finish_step: Callable[[], None]
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    _last: float = 0.0
    _seconds: list[float] = field(default_factory=list)

    def image_begins(self) -> None:
        """Do not measure an image's first step, which includes encoding the prompt."""
        self._last = 0.0

    def step_ended(self) -> None:
        """A step of any image is finished."""
        self.finish_step()
        now = time.monotonic()
        if self._last:
            self._seconds.append(now - self._last)
        self._last = now
        self.done += 1
        self.on_step(self.done)

    def step_seconds(self, whole: float) -> float:
        """The mean duration of a step; for images of one step, which have no interval, the total's share."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else whole / self.done


def load(
    settings: ModelSettings,
    *,
    compile_missing: bool = False,
    on_found: Callable[[int], None] = lambda _: None,
    on_read: Callable[[int], None] = lambda _: None,
) -> FluxModel:
    """Load the model with the backend that the settings name.

    Raises ConfigurationError if the model is missing, incomplete or too large, or if installed packages would
    break it. `compile_missing`: with FLUX_COMPILE=regional, compile what the cache lacks, and store it there.
    `on_found` is called with the bytes of weights that will be read, if the checkpoint tells,
    `on_read`, from other threads, with those that have been read so far.
    """
    backend = select_backend(settings)
    backend.check_packages()
    checkpoint = find(settings)
    backend.require(checkpoint)
    if backend.name != "neuron":  # each size compiled for Neuron has its own weights
        on_found(sum(checkpoint.weights().values()))
    loaded = backend.load(checkpoint, settings, compile_missing=compile_missing, on_read=on_read)
    return FluxModel(loaded, backend, _origin(checkpoint, backend))


def _origin(checkpoint: Checkpoint, backend: Backend) -> Origin:
    versions = {name: importlib.metadata.version(name) for name in backend.libraries}
    return Origin(
        repo=MODEL,
        revision=checkpoint.revision,
        precision=checkpoint.precision,
        device=backend.name,
        versions={"flux_worker": __version__} | versions,
    )
