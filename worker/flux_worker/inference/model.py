"""FLUX.1-dev, loaded once from local files, on whichever backend this machine has."""

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

log = logging.getLogger(__name__)

OnStep = Callable[[int], None]
"""Called after each step with the number of steps done, over all images of the job. A job that is begun again
counts from 1 again.
"""


class FluxModel:
    """A loaded model, ready to draw one image at a time."""

    def __init__(self, loaded: Loaded, backend: Backend, origin: Origin) -> None:
        self.origin = origin
        self._loaded = loaded
        self._backend = backend

    @property
    def pipeline(self) -> Any:
        """diffusers' pipeline, or one that behaves as such."""
        return self._loaded.pipeline

    @property
    def device(self) -> str:
        """cuda, cpu or neuron."""
        return self._backend.name

    def check(self, job: Job) -> None:
        """Raise InvalidJob for a size that is not drawn here, and where the prompt is longer than the job
        reads; diffusers would cut it off.
        """
        self._loaded.check(job)
        tokens = len(self.pipeline.tokenizer_2(job.prompt, verbose=False).input_ids)
        if tokens > job.max_sequence_length:
            reason = f"prompt: {tokens} tokens long, and at most {job.max_sequence_length} are read"
            raise InvalidJob(reason, job_id=job.id)

    def generate(self, job: Job, on_step: OnStep = lambda _: None) -> GeneratedImages:
        """Draw the job's images, one after another: memory stays that of one; image i has seed + i.

        Where memory runs out, all that is not in use is freed and the job begun again, once. What `on_step`
        raises ends the drawing and passes through. Raises BadPicture for images that are none.
        """
        job = job.seeded()
        try:
            return self._attempt(job, on_step)
        except (MemoryError, RuntimeError) as error:  # CUDA's and PyTorch's are RuntimeErrors
            if not ran_out(error):
                raise
            log.warning("memory ran out, the job is begun again: %s", _first_line(error))
        # Out here the error is gone, and with it the frames whose tensors it kept.
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
        """Whether the device is of no more use to this process after such an error."""
        return self._backend.is_fatal(error)

    def warm_up(self, on_step: OnStep = lambda _: None) -> None:
        """Draw once, so that the first job does not pay for kernels and memory being set up.

        Shows, too, whether the model draws at all, at any time. Raises BadPicture where it does not.
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
    """Tells of steps, and times them: from one step's end to the next, or an image's first from its begin."""

    on_step: OnStep
    finish_step: Callable[[], None]
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    _last: float = 0.0
    _seconds: list[float] = field(default_factory=list)

    def image_begins(self) -> None:
        """The first step of an image also carries the reading of the prompt: it only counts alone."""
        self._last = 0.0

    def step_ended(self) -> None:
        """A step ends, of whichever image."""
        self.finish_step()
        now = time.monotonic()
        if self._last:
            self._seconds.append(now - self._last)
        self._last = now
        self.done += 1
        self.on_step(self.done)

    def step_seconds(self, whole: float) -> float:
        """The mean of a step; images of one step have no interval between steps: they share the whole."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else whole / self.done


def load(
    settings: ModelSettings,
    *,
    compile_missing: bool = False,
    on_found: Callable[[int], None] = lambda _: None,
) -> FluxModel:
    """Load the model onto the device of the settings' backend.

    Raises ConfigurationError where the model is not there or not whole, does not fit, or where the installed
    packages would not do it justice. `compile_missing`: with FLUX_COMPILE=regional, compile what its cache
    lacks, and keep it there. `on_found` hears how many bytes of weights will be read, where
    the checkpoint tells.
    """
    backend = select_backend(settings)
    backend.check_packages()
    checkpoint = find(settings)
    backend.require(checkpoint)
    if backend.name != "neuron":  # there each compiled size has weights of its own
        on_found(sum(checkpoint.weights().values()))
    loaded = backend.load(checkpoint, settings, compile_missing=compile_missing)
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
