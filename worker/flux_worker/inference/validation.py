"""What must hold of a loaded pipeline before anything is drawn (R-DTYPE, R-XFORMERS, R-OFFLOAD)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..errors import ConfigurationError
from .checkpoint import QUANTIZED_COMPONENTS
from .images import Precision

# torch's own scaled_dot_product_attention, as diffusers names it.
_ATTENTION = {"FluxAttnProcessor", "AttnProcessor2_0"}


def assert_valid(pipeline: Any, precision: Precision) -> None:
    """Raise ConfigurationError unless weights are all there, in their precision, at home; attention SDPA."""
    for name, part in _networks(pipeline):
        _assert_weights(name, part)
        _assert_not_offloaded(name, part)
        _assert_attention(name, part)
        _assert_precision(name, part, precision)


def assert_on_device(pipeline: Any, device: str) -> None:
    """Raise ConfigurationError unless every weight lies on the device that draws."""
    for name, part in _networks(pipeline):
        for key, weight in part.named_parameters():
            if weight.device.type != device:
                raise ConfigurationError(f"{name}.{key} stayed on {weight.device}, not on {device}")


def _networks(pipeline: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            yield name, part


def _assert_weights(name: str, part: torch.nn.Module) -> None:
    """None is left on the meta device; all compute in bfloat16, which int8 weights name as theirs, too."""
    for key, weight in part.named_parameters():
        if weight.is_meta:
            raise ConfigurationError(f"{name} lacks the weight {key}: the model's files are incomplete")
        if weight.dtype is not torch.bfloat16:
            raise ConfigurationError(f"{name}.{key} is {weight.dtype}, not bfloat16")


def _assert_not_offloaded(name: str, part: torch.nn.Module) -> None:
    """Offloading, of whole models or layer by layer, works by hooks of accelerate's or diffusers'."""
    for key, module in part.named_modules():
        if hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook"):
            raise ConfigurationError(f"{name}.{key} would be moved between devices: offloading is not wanted")


def _assert_attention(name: str, part: Any) -> None:
    kinds = {type(processor).__name__ for processor in getattr(part, "attn_processors", {}).values()}
    if other := kinds - _ATTENTION:
        raise ConfigurationError(f"{name} has attention by {', '.join(sorted(other))}, not by torch's own")


def _assert_precision(name: str, part: torch.nn.Module, precision: Precision) -> None:
    quantized = any(_is_int8(weight) for weight in part.parameters())
    if quantized != (precision == "int8" and name in QUANTIZED_COMPONENTS):
        raise ConfigurationError(f"{name} is {'' if quantized else 'not '}in int8, and was to be {precision}")


def _is_int8(weight: torch.Tensor) -> bool:
    """Whether it is torchao's quantised tensor; told by name, since bfloat16 needs no torchao."""
    return type(weight).__name__ == "Int8Tensor"
