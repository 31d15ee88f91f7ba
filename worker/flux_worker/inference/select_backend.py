"""Select the backend: CUDA, the CPU or Neuron."""

from __future__ import annotations

import logging
from typing import Literal

from ..errors import ConfigurationError
from ..settings import ModelSettings
from . import backend_neuron, backend_torch, devices
from .backend import Backend

log = logging.getLogger(__name__)


def select_backend(settings: ModelSettings) -> Backend:
    """The backend that the settings name; auto: a GPU, else Neuron if its packages are installed.

    Raises ConfigurationError if there is neither; the CPU is used only if it is named.
    """
    select_device(settings)
    name = settings.backend if settings.backend != "auto" else detect()
    if name is None:
        raise ConfigurationError(f"{explain_no_device()}. {devices.CPU_HINT}")
    if name == "neuron":
        log.warning(backend_neuron.EXPERIMENTAL)
        return backend_neuron.NeuronBackend(settings.neuron_dir)
    return backend_torch.TorchBackend(name, settings.workers)


def select_device(settings: ModelSettings) -> None:
    """Hide all GPUs but the one that FLUX_DEVICE names; the CPU and NeuronCores are not divided."""
    if settings.device is not None and settings.backend in ("auto", "cuda"):
        devices.select_gpu(settings.device)


def detect() -> Literal["cuda", "neuron"] | None:
    """The device that `auto` selects on this machine; None if there is only the CPU."""
    if devices.has_gpu():
        return "cuda"
    return "neuron" if backend_neuron.devices() and backend_neuron.installed() else None


def explain_no_device() -> str:
    """Why `auto` selects nothing."""
    return f"FLUX_BACKEND=auto finds no GPU that torch can see: {devices.describe_gpu()}"
