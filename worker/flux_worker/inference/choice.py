"""Which kind of hardware draws here."""

from __future__ import annotations

import logging

from ..settings import ModelSettings
from . import backend_neuron, backend_torch
from .backend import Backend, BackendName

log = logging.getLogger(__name__)


def choose(settings: ModelSettings) -> Backend:
    """The backend that the settings name; auto: a GPU, else Neuron with its packages, else the CPU."""
    name = settings.backend if settings.backend != "auto" else _present()
    if name == "neuron":
        log.warning(backend_neuron.EXPERIMENTAL)
        return backend_neuron.NeuronBackend(settings.neuron_dir)
    return backend_torch.TorchBackend(name)


def _present() -> BackendName:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if not backend_neuron.devices():
        return "cpu"
    if backend_neuron.installed():
        return "neuron"
    log.warning("Neuron devices, but no optimum-neuron: drawing on the CPU, slowly")
    return "cpu"
