"""FLUX.1-dev: its files, their sizes, and the memory it takes. Nothing about hardware stands here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bake.resources import MODEL_FACTS

GIB = 1 << 30
MIB = 1 << 20


# The worker's model.json is the only place where the model's sizes and memory peaks are written; its
# model_facts.py describes it.
_FACTS: Mapping[str, Any] = MappingProxyType(json.loads(MODEL_FACTS.read_bytes()))

REPO: str = _FACTS["repo"]
REVISION: str = _FACTS["revision"]

# What diffusers loads. The single-file checkpoints beside it would double the download.
COMPONENTS = (
    "transformer",
    "text_encoder_2",
    "text_encoder",
    "vae",
    "tokenizer_2",
    "tokenizer",
    "scheduler",
)
INDEX = "model_index.json"

# Bytes of the large files of REVISION; configurations, indexes and merges.txt are left out.
SIZES: Mapping[str, int] = MappingProxyType(_FACTS["files"])

# Peak reserved VRAM of one 1024 x 1024 image, in GiB, by precision.
PEAK_GIB: Mapping[str, float] = MappingProxyType(_FACTS["peak_vram_gib"])

# Anonymous host memory while loading, as a share of the weights, without the weights themselves.
LOADING_SHARE: float = _FACTS["loading_share"]


@dataclass(frozen=True)
class WeightFile:
    """One file of the repository: `sha256` of a large one (LFS), `git_oid` (git blob id) of a small one.

    Neither where only the size is known.
    """

    bytes: int
    sha256: str | None = None
    git_oid: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether its content is known, and not only its size."""
        return self.sha256 is not None or self.git_oid is not None

    @property
    def digest(self) -> str | None:
        """The hash that names its content: also the name of its blob in the Hugging Face cache."""
        return self.sha256 or self.git_oid

    def differs_from(self, other: WeightFile) -> bool:
        """Whether `other` has another content; a hash that only one of them has does not count."""
        pairs = ((self.sha256, other.sha256), (self.git_oid, other.git_oid))
        return self.bytes != other.bytes or any(None not in pair and len({*pair}) > 1 for pair in pairs)

    def as_dict(self) -> dict[str, int | str]:
        """As the lock file and the builder have it."""
        hashes = {"sha256": self.sha256} if self.sha256 else {"git_oid": self.git_oid}
        return {"bytes": self.bytes, **{name: value for name, value in hashes.items() if value}}


def component(path: str) -> str:
    """The folder of a file in the repository: `transformer`, `vae`, …; the file itself at the top."""
    return path.split("/", 1)[0]


def _int8_shares() -> Mapping[str, float]:
    """By component, its size in int8 as a share of its size in bfloat16."""
    return {
        name: int8 / sum(size for path, size in SIZES.items() if component(path) == name)
        for name, int8 in _FACTS["int8_bytes"].items()
    }


# In a component's folder: configurations, tokenizers, and weights as safetensors; no other variant
# (`model.fp16.safetensors`), no other format (`.bin`, ONNX).
LOADED = re.compile(r"[\w.-]+\.(json|txt|model)|\w+(-\d{5}-of-\d{5})?\.safetensors")


def components(index: Mapping[str, object]) -> tuple[str, ...]:
    """The folders that `model_index.json` names: those of the parts that the pipeline has."""
    return tuple(
        name for name, spec in index.items() if isinstance(spec, list) and len(spec) == 2 and all(spec)
    )


def wanted(path: str, of: Iterable[str] = COMPONENTS) -> bool:
    """Whether diffusers loads this file of the repository, which has the components `of`."""
    folder, _, name = path.partition("/")
    return path == INDEX or (folder in of and LOADED.fullmatch(name) is not None)


def resident_bytes(files: Mapping[str, WeightFile], precision: str) -> int:
    """Bytes of the weights in the accelerator's memory: the files hold bfloat16, int8 takes about half."""
    shares = _int8_shares() if precision == "int8" else {}
    weights = {path: file.bytes for path, file in files.items() if path.endswith(".safetensors")}
    return sum(round(size * shares.get(component(path), 1)) for path, size in weights.items())


def checkpoint_bytes(files: Mapping[str, WeightFile]) -> int:
    """Bytes of an int8 checkpoint on the disk: it holds all that is loaded, and needs no other file."""
    rest = sum(file.bytes for path, file in files.items() if not path.endswith(".safetensors"))
    return resident_bytes(files, "int8") + rest


def working_bytes(precision: str) -> int:
    """Activations, VAE and allocator at 1024 x 1024: the measured peak less the weights measured with it."""
    known = {path: WeightFile(size) for path, size in SIZES.items()}
    return round(PEAK_GIB[precision] * GIB) - resident_bytes(known, precision)


def largest_component(files: Mapping[str, WeightFile]) -> tuple[str, int]:
    """The largest component and its bytes."""
    sizes: dict[str, int] = {}
    for path, file in files.items():
        sizes[component(path)] = sizes.get(component(path), 0) + file.bytes
    return max(sizes.items(), key=lambda item: item[1])
