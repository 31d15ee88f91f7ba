"""The backends `cuda` and `cpu`: diffusers' pipeline, with weights read from the model's files."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from ..errors import ConfigurationError
from ..jobspec.job import MAX_PROMPT_TOKENS, Job
from ..settings import ModelSettings
from . import capacity, devices, library_logging
from .backend import Report
from .checkpoint import Checkpoint
from .compilation import CompiledBlocks, Shape, compiled_blocks
from .streaming.report import StreamReport
from .streaming.second_path import second_path
from .streaming.stream import Stream
from .validation import assert_on_device, assert_valid

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class TorchModel:
    """A pipeline on a GPU or the CPU; `blocks`: its compiled transformer blocks, if any.

    `streamed`: how its weights were read; None if they were mapped.
    """

    def __init__(
        self,
        pipeline: Any,
        device: str,
        blocks: CompiledBlocks | None = None,
        streamed: StreamReport | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.streamed = streamed
        self._device = device
        self._blocks = blocks

    def check(self, job: Job) -> None:
        """All sizes that a job may have are supported."""

    def run(self, job: Job, generate: Callable[[Any], _Result]) -> _Result:
        """Call `generate` with the pipeline, with compiled blocks if there are any for the job."""
        if self._blocks:
            return self._blocks.run(job, lambda: generate(self.pipeline))
        return generate(self.pipeline)

    def warm_up(self) -> list[Shape]:
        """A small shape on the CPU, where a large one takes minutes."""
        side = 1024 if self._device == "cuda" else 256
        return [Shape(side, side, MAX_PROMPT_TOKENS)]


class TorchBackend:
    """A CUDA device, which is the only one that the process sees or the first, or the CPU."""

    libraries = ("torch", "diffusers", "transformers", "torchao")

    def __init__(self, name: Literal["cuda", "cpu"], workers: int = 1) -> None:
        self.name = name
        self._workers = workers

    def check_packages(self) -> None:
        """Raise ConfigurationError if xformers, which breaks FLUX, is installed, or accelerate is not."""
        if importlib.util.find_spec("xformers"):
            raise ConfigurationError("xformers is installed, and it breaks FLUX: pip uninstall xformers")
        if not importlib.util.find_spec("accelerate"):
            # diffusers would disable low_cpu_mem_usage with only a warning.
            raise ConfigurationError(
                "accelerate is missing, loading would need far more memory: pip install accelerate"
            )

    def require(self, checkpoint: Checkpoint) -> None:
        """Raise ConfigurationError if there is no such device, or the model does not fit.

        What the instance's other workers have taken by now is not available any more: only this one counts.
        """
        capacity.require(self._machine(), checkpoint)

    def report(self, checkpoint: Checkpoint) -> Report:
        """Both precisions, with the arithmetic; RAM for all workers of the instance."""
        machine = replace(self._machine(), workers=self._workers)
        both = capacity.assess_both(machine, checkpoint)
        return Report(
            fits=both[checkpoint.precision].fits,
            lines=capacity.lines(machine, checkpoint, both),
            facts=capacity.as_json(machine, checkpoint, both),
        )

    def load(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        *,
        compile_missing: bool,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> TorchModel:
        """Read the weights into the device's memory, while the libraries build the model."""
        machine = self._machine()
        stream = self._stream(checkpoint, settings, machine, on_read) if settings.load == "stream" else None
        pipeline, streamed = self._build(checkpoint, stream)
        pipeline.to(self.name)  # what was not streamed
        assert_on_device(pipeline, self.name)
        _decode_in_tiles(pipeline.vae, capacity.tile_side(machine, checkpoint))
        pipeline.set_progress_bar_config(disable=True)
        blocks = None
        if settings.compile == "regional":
            cache, precision = settings.compile_cache, checkpoint.precision
            blocks = compiled_blocks(pipeline.transformer, cache, precision, self.name, fill=compile_missing)
        return TorchModel(pipeline, self.name, blocks, streamed)

    def _build(self, checkpoint: Checkpoint, stream: Stream | None) -> tuple[Any, StreamReport | None]:
        with stream or contextlib.nullcontext():
            pipeline = _from_files(checkpoint.folder)
            assert_valid(pipeline, checkpoint.precision)
            return pipeline, stream.fill(pipeline) if stream else None

    def _stream(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        machine: capacity.Machine,
        on_read: Callable[[int], None],
    ) -> Stream | None:
        """The weights' stream; None, with a warning, where memory does not suffice."""
        why = capacity.no_room_to_stream(replace(machine, workers=self._workers), checkpoint)
        if why is None:
            other = second_path(settings, checkpoint.folder)
            try:
                return Stream(
                    checkpoint.folder, self.name, others=other.sources, hashed=other.hashed, on_read=on_read
                )
            except (RuntimeError, MemoryError) as error:
                why = str(error)
        log.warning("the weights are mapped and not read into memory, which is slower: %s", why)
        return None

    def finish_step(self) -> None:
        """Wait for the GPU, which runs kernels asynchronously: otherwise a finished step would only be a
        queued one, a hung GPU would look alive, and an abandoned job would run on.
        """
        if self.name == "cuda":
            torch.cuda.synchronize()

    def free_memory(self) -> None:
        """Empty the allocator's cache, which may be fragmented."""
        if self.name == "cuda":
            torch.cuda.empty_cache()

    def is_fatal(self, error: Exception) -> bool:
        """Whether the CUDA context is lost, as after an illegal access, but not after lack of memory."""
        return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)

    def _machine(self) -> capacity.Machine:
        machine = capacity.this_machine()
        if self.name == "cpu":
            return machine.without_gpu()
        if not machine.gpu:
            raise ConfigurationError(
                f"FLUX_BACKEND=cuda, but torch finds no GPU: {devices.describe_gpu()}. {devices.CPU_HINT}"
            )
        return machine


def _from_files(folder: Path) -> Any:
    library_logging.reduce_logging()
    import diffusers
    from safetensors import SafetensorError

    library_logging.disable_progress_bars()
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
    except SafetensorError as error:
        raise ConfigurationError(f"The model in {folder} is damaged: {error}") from error


def _decode_in_tiles(vae: Any, side: int | None) -> None:
    """Decode in tiles of `side` pixels that overlap by a quarter; None: decode whole images."""
    if side is None:
        return
    vae.enable_slicing()
    vae.enable_tiling()
    factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent
    vae.tile_sample_min_size = side
    vae.tile_latent_min_size = side // factor
