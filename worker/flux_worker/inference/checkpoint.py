"""Where the model's files are, and what they hold: a snapshot in the Hub's cache, or an int8 checkpoint."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigurationError
from ..settings import MODEL, ModelSettings
from .drawing import Precision

# What diffusers loads. Named, because the Hub's cache also knows the duplicates that nobody downloads, and
# counts a snapshot without them as incomplete unless it is told what is wanted.
LOADED_FILES = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model"]

QUANTISED = ("transformer", "text_encoder_2")
"""The components that int8 checkpoints hold in int8; the others are small and stay in bfloat16."""

PROVENANCE = "quantization.json"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class File(BaseModel):
    """A file's size in bytes and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: Digest


class Provenance(BaseModel):
    """What an int8 checkpoint was made of, by what and when. Paths are relative to the model's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    repo: Literal["black-forest-labs/FLUX.1-dev"] = "black-forest-labs/FLUX.1-dev"
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    precision: Literal["int8"] = "int8"
    method: str
    versions: Mapping[str, str]
    made: str
    """Date and time, UTC, ISO 8601."""
    inputs: Mapping[str, File]
    outputs: Mapping[str, File]

    @classmethod
    def read(cls, folder: Path) -> Provenance:
        """The provenance of the checkpoint in `folder`. Raises ConfigurationError."""
        try:
            return cls.model_validate_json((folder / PROVENANCE).read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"{folder} is no int8 checkpoint: {PROVENANCE}: {error.strerror}. "
                f"`flux-worker quantize` makes one"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(f"{folder / PROVENANCE} is not readable: {error}") from error


@dataclass(frozen=True)
class Checkpoint:
    """A whole FLUX.1-dev on disk: its folder, the commit it comes from, and its precision."""

    folder: Path
    revision: str
    precision: Precision

    def weights(self) -> dict[str, int]:
        """Bytes of each component's weights as they lie on disk, which is what they take in memory."""
        sizes: dict[str, int] = {}
        for file in self.folder.glob("*/*.safetensors"):
            sizes[file.parent.name] = sizes.get(file.parent.name, 0) + file.stat().st_size
        return sizes


def find(settings: ModelSettings) -> Checkpoint:
    """The model that the settings name; never downloads. Raises ConfigurationError."""
    _go_offline()
    if settings.model_dir:
        return _int8(settings.model_dir, settings.revision)
    folder = snapshot(settings)
    assert_dev(folder)
    assert_vocabularies(folder)
    return Checkpoint(folder, settings.revision, "bf16")


def _go_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when it is first imported


def _int8(folder: Path, revision: str) -> Checkpoint:
    provenance = Provenance.read(folder)
    if provenance.revision != revision:
        raise ConfigurationError(
            f"FLUX_MODEL_DIR={folder} was made of commit {provenance.revision}, "
            f"but FLUX_MODEL_REVISION is {revision}"
        )
    for name, file in provenance.outputs.items():
        held = (folder / name).stat().st_size if (folder / name).is_file() else None
        if held != file.bytes:
            raise ConfigurationError(
                f"{folder / name} has {held or 'no'} bytes, not {file.bytes}: the checkpoint is incomplete, "
                "make it again with `flux-worker quantize`"
            )
    assert_dev(folder)
    assert_vocabularies(folder)
    return Checkpoint(folder, revision, "int8")


def snapshot(settings: ModelSettings) -> Path:
    """The snapshot's folder in the Hub's cache, complete. Raises ConfigurationError."""
    _go_offline()
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
    return Path(folder)


def commit_of(folder: Path) -> str:
    """The commit of a snapshot of FLUX.1-dev in a Hub cache, told by its path. Raises ConfigurationError."""
    folder = folder.absolute()
    repo = f"models--{MODEL.replace('/', '--')}"
    if (
        not re.fullmatch(r"[0-9a-f]{40}", folder.name)
        or folder.parent.name != "snapshots"
        or folder.parents[1].name != repo
    ):
        raise ConfigurationError(
            f"{folder} is not a snapshot of {MODEL} in a Hub cache (…/{repo}/snapshots/<commit>), "
            "so nobody could say which model it is"
        )
    return folder.name


def assert_dev(folder: Path) -> None:
    """Raise ConfigurationError for another model: FLUX.1-schnell has no guidance embedding (R-MODEL)."""
    try:
        pipeline = json.loads((folder / "model_index.json").read_text())["_class_name"]
        guided = json.loads((folder / "transformer" / "config.json").read_text())["guidance_embeds"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{folder} holds no readable FLUX.1-dev: {error!r}") from error
    if pipeline != "FluxPipeline" or not guided:
        raise ConfigurationError(f"{folder} holds another model than {MODEL}")


def assert_vocabularies(folder: Path) -> None:
    """Raise ConfigurationError without vocabularies: transformers makes empty tokenizers in silence."""
    for name in ("tokenizer", "tokenizer_2"):
        if not any(
            (folder / name / file).is_file() for file in ("tokenizer.json", "vocab.json", "spiece.model")
        ):
            raise ConfigurationError(f"{folder / name} holds no vocabulary: the model's files are incomplete")
