"""Find and verify the model's files: a snapshot in the Hub's cache, or an int8 checkpoint."""

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
from . import integrity
from .images import Precision
from .integrity import Expected, OnRead, Verification

QUANTIZED_COMPONENTS = ("transformer", "text_encoder_2")
"""The components that int8 checkpoints quantize; the others are small and stay in bfloat16."""

PROVENANCE = "quantization.json"

REMEDIES: dict[Precision, str] = {
    "bf16": "remove these files with their blobs, and download the model again",
    "int8": "make it again with `flux-worker quantize`",
}
"""Advice about missing or changed files."""

_REPO_FOLDER = f"models--{MODEL.replace('/', '--')}"
_MOST_NAMED = 5  # if all are wrong, they have one cause

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class File(BaseModel):
    """A file's size in bytes and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: Digest


class Provenance(BaseModel):
    """From what, how and when an int8 checkpoint was made. Paths are relative to the model's folder."""

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
                f"{folder} is not an int8 checkpoint: {PROVENANCE}: {error.strerror}. "
                f"`flux-worker quantize` makes one"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(f"{folder / PROVENANCE} is not readable: {error}") from error


@dataclass(frozen=True)
class Checkpoint:
    """A complete FLUX.1-dev on disk: its folder, its commit and its precision."""

    folder: Path
    revision: str
    precision: Precision

    def weights(self) -> dict[str, int]:
        """Bytes of each component's weights on disk, and so in memory."""
        sizes: dict[str, int] = {}
        for file in self.folder.glob("*/*.safetensors"):
            sizes[file.parent.name] = sizes.get(file.parent.name, 0) + file.stat().st_size
        return sizes


def find(settings: ModelSettings) -> Checkpoint:
    """Find the model that the settings name; never downloads. Raises ConfigurationError."""
    _go_offline()
    if settings.model_dir:
        return _int8(settings.model_dir, settings.revision)
    folder = snapshot(settings)
    assert_dev(folder)
    assert_vocabularies(folder)
    _assert_intact(folder, integrity.expected_in_cache(folder), "bf16")
    return Checkpoint(folder, settings.revision, "bf16")


def _go_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when it is first imported


def _int8(folder: Path, revision: str) -> Checkpoint:
    provenance = Provenance.read(folder)
    if provenance.revision != revision:
        raise ConfigurationError(
            f"FLUX_MODEL_DIR={folder} was made from commit {provenance.revision}, "
            f"but FLUX_MODEL_REVISION is {revision}"
        )
    _assert_intact(folder, _expected_int8(folder, provenance), "int8")
    assert_dev(folder)
    assert_vocabularies(folder)
    return Checkpoint(folder, revision, "int8")


def _expected_int8(folder: Path, provenance: Provenance) -> dict[str, Expected]:
    strangers = dict.fromkeys(
        integrity.loaded_files(folder), Expected(wrong="does not belong to this checkpoint")
    )
    return strangers | {name: Expected(file.sha256, file.bytes) for name, file in provenance.outputs.items()}


def _assert_intact(folder: Path, known: Mapping[str, Expected], precision: Precision) -> None:
    """Raise ConfigurationError, naming the files, if any is seen to have changed."""
    faults = [f"{folder / name} {fault}" for name, fault in integrity.faults(folder, known).items()]
    if faults:
        more = [f"{len(faults) - _MOST_NAMED} more"] if len(faults) > _MOST_NAMED else []
        named = "; ".join(faults[:_MOST_NAMED] + more)
        raise ConfigurationError(f"the model cannot be loaded: {named}: {REMEDIES[precision]}")


def verify(settings: ModelSettings, on_read: OnRead) -> Verification:
    """Read every file of the model that the settings name, and find those that changed.

    Raises ConfigurationError if the model is missing altogether.
    """
    _go_offline()
    if folder := settings.model_dir:
        return integrity.verify(folder, _expected_int8(folder, Provenance.read(folder)), on_read)
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(settings.cache or HF_HUB_CACHE, _REPO_FOLDER, "snapshots", settings.revision)
    if not folder.is_dir():
        folder = snapshot(settings)  # says where it looked
    return integrity.verify(folder, integrity.expected_in_listing(folder), on_read)


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
            allow_patterns=integrity.LOADED_FILES,
        )
    except LocalEntryNotFoundError as error:
        where = (
            f"HF_HUB_CACHE={settings.cache}"
            if settings.cache
            else "the default cache (HF_HUB_CACHE is not set)"
        )
        raise ConfigurationError(
            f"{settings.repo} at {settings.revision} is missing or incomplete in {where}: {error}"
        ) from error
    return Path(folder)


def commit_of(folder: Path) -> str:
    """The commit of a FLUX.1-dev snapshot in a Hub cache, from its path. Raises ConfigurationError."""
    folder = folder.absolute()
    repo = _REPO_FOLDER
    if (
        not re.fullmatch(r"[0-9a-f]{40}", folder.name)
        or folder.parent.name != "snapshots"
        or folder.parents[1].name != repo
    ):
        raise ConfigurationError(
            f"{folder} is not a snapshot of {MODEL} in a Hub cache (…/{repo}/snapshots/<commit>), "
            "so its commit is unknown"
        )
    return folder.name


def assert_dev(folder: Path) -> None:
    """Raise ConfigurationError for another model: FLUX.1-schnell has no guidance embedding (R-MODEL)."""
    try:
        pipeline = json.loads((folder / "model_index.json").read_text())["_class_name"]
        guided = json.loads((folder / "transformer" / "config.json").read_text())["guidance_embeds"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{folder} contains no readable FLUX.1-dev: {error!r}") from error
    if pipeline != "FluxPipeline" or not guided:
        raise ConfigurationError(f"{folder} contains another model than {MODEL}")


def assert_vocabularies(folder: Path) -> None:
    """Raise ConfigurationError without vocabularies: transformers silently makes empty tokenizers."""
    for name in ("tokenizer", "tokenizer_2"):
        if not any(
            (folder / name / file).is_file() for file in ("tokenizer.json", "vocab.json", "spiece.model")
        ):
            raise ConfigurationError(f"{folder / name} has no vocabulary: the model's files are incomplete")
