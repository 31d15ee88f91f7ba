"""FLUX.1-dev, loaded once from local files: bfloat16, SDPA attention, no offloading, no xformers."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import __version__
from .errors import ConfigurationError, InvalidJob
from .job import MAX_PROMPT_TOKENS, Job
from .settings import MODEL, ModelSettings

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

log = logging.getLogger(__name__)

# What diffusers loads. Named, because the Hub's cache also knows the duplicates that nobody downloads, and
# counts a snapshot without them as incomplete unless it is told what is wanted.
LOADED_FILES = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model"]

OnStep = Callable[[int], None]
"""Called after each step with the number of steps done."""


@dataclass(frozen=True)
class Drawing:
    """A finished image with the job that made it (seed included) and the seconds it took."""

    image: Image
    job: Job
    revision: str
    seconds: float

    def png(self) -> bytes:
        """The image as PNG, its parameters in text chunks."""
        data = io.BytesIO()
        self.image.save(data, format="PNG", pnginfo=self._text_chunks())
        return data.getvalue()

    def _text_chunks(self) -> PngInfo:
        from PIL.PngImagePlugin import PngInfo

        parameters = self.job.model_dump() | {"model": MODEL, "model_revision": self.revision}
        chunks = PngInfo()
        chunks.add_text("Software", f"flux-worker {__version__}")
        chunks.add_itxt("Description", self.job.prompt)
        chunks.add_text("parameters", json.dumps(parameters))  # ASCII: json escapes the rest
        return chunks


class FluxModel:
    """A loaded pipeline, ready to draw one image at a time."""

    def __init__(self, pipeline: Any, *, device: str, revision: str) -> None:
        self.pipeline = pipeline
        self.device = device
        self.revision = revision

    def check(self, job: Job) -> None:
        """Raise InvalidJob where the prompt is longer than the model reads; diffusers would cut it off."""
        tokens = len(self.pipeline.tokenizer_2(job.prompt, verbose=False).input_ids)
        if tokens > MAX_PROMPT_TOKENS:
            reason = f"prompt: {tokens} tokens long, and the model reads {MAX_PROMPT_TOKENS}"
            raise InvalidJob(reason, job_id=job.id)

    def draw(self, job: Job, on_step: OnStep = lambda _: None) -> Drawing:
        """Draw one image. The noise comes from the CPU's generator: a seed starts the same everywhere."""
        job = job.seeded()
        assert job.seed is not None
        started = time.monotonic()

        def step_done(_pipeline: object, step: int, _timestep: object, _tensors: object) -> dict[str, Any]:
            on_step(step + 1)
            return {}

        result = self.pipeline(
            prompt=job.prompt,
            width=job.width,
            height=job.height,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            max_sequence_length=MAX_PROMPT_TOKENS,
            callback_on_step_end=step_done,
            callback_on_step_end_tensor_inputs=[],
        )
        return Drawing(result.images[0], job, self.revision, time.monotonic() - started)

    @staticmethod
    def broken_by(error: Exception) -> bool:
        """Whether the GPU's context is lost, as after an illegal access; lack of memory is survived."""
        return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)

    def warm_up(self) -> None:
        """Draw once, so that the first job does not pay for kernels and memory being set up."""
        side = 1024 if self.device == "cuda" else 256
        self.draw(Job(id="warm-up", prompt="a warm-up", width=side, height=side, steps=2, seed=0))


def load(settings: ModelSettings) -> FluxModel:
    """Load the model onto the GPU, or the CPU where there is none.

    Weights are mapped from the files rather than read into memory. Raises ConfigurationError where the cache
    does not hold the model, or where the installed packages would not do it justice.
    """
    refuse_packages()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = _from_files(find(settings))
    _assert_whole(pipeline)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return FluxModel(pipeline, device=device, revision=settings.revision)


def refuse_packages() -> None:
    """Raise ConfigurationError for xformers, which breaks FLUX, and where accelerate is missing."""
    if importlib.util.find_spec("xformers"):
        raise ConfigurationError("xformers is installed, and it breaks FLUX: pip uninstall xformers")
    if not importlib.util.find_spec("accelerate"):
        # diffusers would turn low_cpu_mem_usage off with a mere warning.
        raise ConfigurationError(
            "accelerate is missing, loading would need far more memory: pip install accelerate"
        )


def find(settings: ModelSettings) -> Path:
    """The snapshot's folder in the Hub's cache; never downloads. Raises ConfigurationError."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when it is first imported
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            settings.repo,
            revision=settings.revision,
            cache_dir=settings.cache,
            local_files_only=True,
            allow_patterns=LOADED_FILES,
        )
    except LocalEntryNotFoundError as error:
        where = (
            f"HF_HUB_CACHE={settings.cache}"
            if settings.cache
            else "the default cache (HF_HUB_CACHE is not set)"
        )
        raise ConfigurationError(
            f"{settings.repo} at {settings.revision} is not (wholly) in {where}: {error}"
        ) from error
    _assert_dev(Path(folder))
    _assert_vocabularies(Path(folder))
    return Path(folder)


def _assert_dev(folder: Path) -> None:
    """FLUX.1-schnell has the same pipeline class, but no guidance embedding (R-MODEL)."""
    try:
        pipeline = json.loads((folder / "model_index.json").read_text())["_class_name"]
        guided = json.loads((folder / "transformer" / "config.json").read_text())["guidance_embeds"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{folder} holds no readable FLUX.1-dev: {error!r}") from error
    if pipeline != "FluxPipeline" or not guided:
        raise ConfigurationError(f"{folder} holds another model than {MODEL}")


def _assert_vocabularies(folder: Path) -> None:
    """transformers makes an empty tokenizer of a folder without a vocabulary, and says nothing."""
    for name in ("tokenizer", "tokenizer_2"):
        if not any(
            (folder / name / file).is_file() for file in ("tokenizer.json", "vocab.json", "spiece.model")
        ):
            raise ConfigurationError(f"{folder / name} holds no vocabulary: the model's files are incomplete")


def _from_files(folder: Path) -> Any:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.disable_default_handler()
        library.utils.logging.enable_propagation()
    # At each prompt of more than 77 tokens it warns that CLIP, which FLUX asks for a summary only, reads no
    # further; the warning quotes the prompt, and prompts do not belong into logs.
    logging.getLogger("diffusers.pipelines.flux.pipeline_flux").setLevel(logging.ERROR)
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


def _assert_whole(pipeline: Any) -> None:
    """Every weight is there (none left on the meta device) and in bfloat16."""
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        for key, weight in part.named_parameters():
            if weight.is_meta:
                raise ConfigurationError(f"{name} lacks the weight {key}: the model's files are incomplete")
            if weight.dtype is not torch.bfloat16:
                raise ConfigurationError(f"{name}.{key} is {weight.dtype}, not bfloat16")
