"""Validate a loaded pipeline before it is used (R-DTYPE, R-XFORMERS, R-OFFLOAD)."""

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
    """Raise ConfigurationError unless all weights are there, in their precision and not offloaded, and
    attention is SDPA."""
    for name, part in _networks(pipeline):
        _assert_weights(name, part)
        _assert_not_offloaded(name, part)
        _assert_attention(name, part)
        _assert_precision(name, part, precision)


def assert_on_device(pipeline: Any, device: str) -> None:
    """Raise ConfigurationError unless every weight is on this device."""
    for name, part in _networks(pipeline):
        for key, weight in part.named_parameters():
            if weight.device.type != device:
                raise ConfigurationError(f"{name}.{key} stayed on {weight.device}, not on {device}")


def _networks(pipeline: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            yield name, part


def _assert_weights(name: str, part: torch.nn.Module) -> None:
    """No weight is on the meta device, and all have dtype bfloat16, which int8 weights report, too."""
    for key, weight in part.named_parameters():
        if weight.is_meta:
            raise ConfigurationError(f"{name} lacks the weight {key}: the model's files are incomplete")
        if weight.dtype is not torch.bfloat16:
            raise ConfigurationError(f"{name}.{key} is {weight.dtype}, not bfloat16")


def _assert_not_offloaded(name: str, part: torch.nn.Module) -> None:
    """Offloading works by hooks of accelerate or diffusers."""
    for key, module in part.named_modules():
        if hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook"):
            raise ConfigurationError(
                f"{name}.{key} would be moved between devices: offloading is not allowed"
            )


def _assert_attention(name: str, part: Any) -> None:
    kinds = {type(processor).__name__ for processor in getattr(part, "attn_processors", {}).values()}
    if other := kinds - _ATTENTION:
        raise ConfigurationError(f"{name} uses {', '.join(sorted(other))} for attention, not torch's SDPA")


def _assert_precision(name: str, part: torch.nn.Module, precision: Precision) -> None:
    quantized = any(_is_int8(weight) for weight in part.parameters())
    if quantized != (precision == "int8" and name in QUANTIZED_COMPONENTS):
        raise ConfigurationError(f"{name} is {'' if quantized else 'not '}in int8, expected {precision}")


def _is_int8(weight: torch.Tensor) -> bool:
    """Whether it is torchao's quantized tensor; by its name, since bfloat16 needs no torchao."""
    return type(weight).__name__ == "Int8Tensor"
