"""Stands for a GPU that breaks, under a worker that is real in everything else.

Python imports this at its start wherever this folder is on PYTHONPATH. torch's own hooks around each network
then raise what a broken GPU would raise, or give back what it would.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module

_WAS_ILL = Path("was-ill")  # in the worker's working directory, so that an illness outlives a process


class OutOfResources(Exception):
    """As Triton has it: its errors have no base class of torch's."""


ERRORS = {
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    "cudnn": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    "oom": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "triton": lambda: OutOfResources("out of resource: shared memory, Required: 147456"),
    "accelerator": lambda: torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
}
"""What is raised; of another kind, "nan", the VAE gives back no number."""


class Gpu:
    """Counts the images that are begun, and knows which of them it cannot draw."""

    def __init__(self, *, kind: str = "", course: str = "for ever", after: int = 0) -> None:
        self._kind = kind
        self._course = course
        self._after = after
        self._begun = 0

    def before(self, network: torch.nn.Module, given: Any) -> None:
        """torch's pre-hook of every network."""
        name = type(network).__name__
        if name == "CLIPTextModel":  # read once for each image
            self._begun += 1
        elif name == "FluxTransformer2DModel" and self._kind in ERRORS and self._ill():
            raise ERRORS[self._kind]()
        elif name == "Decoder" and _width(given[0]) == int(os.environ.get("POISONED_WIDTH", 0)):
            raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED for an image of this width")

    def after(self, network: torch.nn.Module, _given: Any, made: Any) -> Any:
        """torch's hook of every network; what it gives back replaces what was made."""
        if type(network).__name__ == "Decoder" and self._kind == "nan" and self._ill():
            return torch.full_like(made, torch.nan)
        return None

    def _ill(self) -> bool:
        if self._course == "at times":
            return self._begun % self._after == 0
        if self._course == "for ever" and _WAS_ILL.exists():
            return True
        if self._begun <= self._after:
            return False
        _WAS_ILL.touch()
        return True


def _width(latents: torch.Tensor) -> int:
    """Of an image that is 256 pixels high."""
    return round(256 * latents.shape[-1] / latents.shape[-2])


if "GPU" in os.environ:
    gpu = Gpu(**json.loads(os.environ["GPU"]))
    module.register_module_forward_pre_hook(gpu.before)
    module.register_module_forward_hook(gpu.after)
