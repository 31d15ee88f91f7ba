"""Plan the files of an int8 checkpoint from the source's headers, without reading weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    import torch

# The linear layers of the blocks. The others are small and sensitive: embedders, last norm and projection,
# T5's embedding and relative positions.
_LINEAR = re.compile(
    r"(single_)?transformer_blocks\.\d+\..+\.weight"
    r"|encoder\.block\.\d+\.layer\.\d+\.(SelfAttention\.[qkvo]|DenseReluDense\.(wi|wi_0|wi_1|wo))\.weight"
)
_ROW_BYTES = 5  # a float32 scale and an int8 zero point per row


@dataclass(frozen=True)
class Weight:
    """A bfloat16 tensor of the source, and whether it is quantized."""

    name: str
    file: Path
    shape: tuple[int, ...]
    quantized: bool

    @property
    def source_bytes(self) -> int:
        """Its bytes in bfloat16."""
        return 2 * prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its bytes in the checkpoint."""
        return prod(self.shape) + _ROW_BYTES * self.shape[0] if self.quantized else self.source_bytes

    def read(self) -> torch.Tensor:
        """The tensor, mapped from its file."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(self.name)
        return tensor


@dataclass(frozen=True)
class Shard:
    """One file of the checkpoint."""

    stem: str
    number: int
    of: int
    weights: tuple[Weight, ...]

    @property
    def name(self) -> str:
        """The file's name, numbered as in diffusers and transformers."""
        return f"{self.stem}-{self.number:05}-of-{self.of:05}.safetensors"

    @property
    def bytes(self) -> int:
        """Its size without the header."""
        return sum(weight.bytes for weight in self.weights)


def plan(component: Path, shard_bytes: int) -> list[Shard]:
    """The shards of one component, each at most `shard_bytes` or one weight. Raises ConfigurationError."""
    groups: list[list[Weight]] = [[]]
    size = 0
    for weight in _weights(component):
        if groups[-1] and size + weight.bytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(weight)
        size += weight.bytes
    stem = re.sub(r"(-\d{5}-of-\d{5})?\.safetensors$", "", groups[0][0].file.name)
    return [Shard(stem, number, len(groups), tuple(group)) for number, group in enumerate(groups, 1)]


def _weights(component: Path) -> Iterator[Weight]:
    from safetensors import SafetensorError, safe_open

    for file in _files(component):
        try:
            # For torch the file would be mapped writable, which a small machine refuses.
            with safe_open(file, framework="np") as content:
                for name in sorted(content.keys()):
                    part = content.get_slice(name)
                    yield _weight(name, file, tuple(part.get_shape()), part.get_dtype())
        except SafetensorError as error:
            raise ConfigurationError(f"{file} is damaged: {error}") from error


def _weight(name: str, file: Path, shape: tuple[int, ...], dtype: str) -> Weight:
    if dtype != "BF16":
        raise ConfigurationError(f"{file} holds {name} as {dtype}: FLUX.1-dev's weights are BF16")
    return Weight(name, file, shape, quantized=len(shape) == 2 and bool(_LINEAR.fullmatch(name)))


def _files(component: Path) -> list[Path]:
    """The component's files. Raises ConfigurationError if any is missing."""
    indexes = list(component.glob("*.safetensors.index.json"))
    try:
        listed = {name for index in indexes for name in json.loads(index.read_text())["weight_map"].values()}
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{component} has an unreadable index: {error!r}") from error
    files = sorted(component / name for name in listed) or sorted(component.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise ConfigurationError(f"{component} lacks {', '.join(missing) or 'its weights'}")
    return files
