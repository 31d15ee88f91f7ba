"""FLUX.1-dev: its files, their sizes, and the memory it takes. Nothing about hardware stands here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

REPO = "black-forest-labs/FLUX.1-dev"
GIB = 1 << 30
MIB = 1 << 20

# The revision that ten public sources agree on.
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"

# What diffusers loads, and nothing else: the single-file checkpoints beside it would double the download.
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

# Bytes of the large files of REVISION; two public sources agree on each. What is left out (configurations,
# indexes, merges.txt) has less than 1 MB in all.
SIZES: Mapping[str, int] = MappingProxyType(
    {
        "transformer/diffusion_pytorch_model-00001-of-00003.safetensors": 9_983_040_304,
        "transformer/diffusion_pytorch_model-00002-of-00003.safetensors": 9_949_328_904,
        "transformer/diffusion_pytorch_model-00003-of-00003.safetensors": 3_870_584_832,
        "text_encoder_2/model-00001-of-00002.safetensors": 4_994_582_224,
        "text_encoder_2/model-00002-of-00002.safetensors": 4_530_066_360,
        "text_encoder/model.safetensors": 246_144_352,
        "vae/diffusion_pytorch_model.safetensors": 167_666_902,
        "tokenizer_2/tokenizer.json": 2_424_235,
        "tokenizer_2/spiece.model": 791_656,
        "tokenizer/vocab.json": 1_059_962,
    }
)

# Peak reserved VRAM of one 1024 x 1024 image, 50 steps, on an H100: GiB. int8 is torchao's weight-only
# quantization of the transformer and of T5. https://huggingface.co/blog/diffusers-quantization
PEAK_GIB: Mapping[str, float] = MappingProxyType({"bf16": 36.2, "int8": 21.5})

# What is quantized in int8, and the share of its bytes that is left of it, as `flux-worker quantize` writes
# FLUX.1-dev: half, and a scale for each row, and the layers outside of the blocks, which stay as they are.
INT8_SHARE: Mapping[str, float] = MappingProxyType(
    {
        "transformer": 11_983_763_584 / 23_802_954_040,
        "text_encoder_2": 4_899_024_896 / 9_524_648_584,
    }
)


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

    def moved(self, other: WeightFile) -> bool:
        """Whether `other` is another content; a hash that only one of them knows says nothing."""
        pairs = ((self.sha256, other.sha256), (self.git_oid, other.git_oid))
        return self.bytes != other.bytes or any(None not in pair and len({*pair}) > 1 for pair in pairs)

    def as_dict(self) -> dict[str, int | str]:
        """As the lock file and the builder have it."""
        hashes = {"sha256": self.sha256} if self.sha256 else {"git_oid": self.git_oid}
        return {"bytes": self.bytes, **{name: value for name, value in hashes.items() if value}}


def component(path: str) -> str:
    """The folder of a file in the repository: `transformer`, `vae`, …; the file itself at the top."""
    return path.split("/", 1)[0]


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
    shares = INT8_SHARE if precision == "int8" else {}
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
