"""Detect a GPU that torch can use, and explain why there is none."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from . import backend_neuron, nvidia_driver

CPU_HINT = "FLUX_BACKEND=cpu uses the CPU, where a step takes minutes"

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAYS = "0x10de", "0x03"  # vendor and device class on the PCI bus


def visible(index: int, environment: Mapping[str, str]) -> str:
    """What CUDA_VISIBLE_DEVICES must be for this GPU, of those that it shows already; "" if there is none."""
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return str(index)
    names = [name.strip() for name in shown.split(",") if name.strip()]
    return names[index] if index < len(names) else ""


@functools.cache
def select_gpu(index: int) -> None:
    """Let this process see this GPU and no other; before anything asks CUDA for its devices.

    So each place of torch, Triton and the driver that means the current device, in every thread, means this
    one, and no context is made on another worker's GPU. Indexes are as nvidia-smi counts.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = visible(index, os.environ)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def has_gpu() -> bool:
    """Whether torch can use a GPU."""
    return torch.cuda.is_available()


def describe_gpu() -> str:
    """Why torch can use no GPU, as far as torch and the kernel tell."""
    return "; ".join([*_of_torch(), *_of_kernel(), *_of_neuron()])


def _of_torch() -> Iterator[str]:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        yield f"torch {torch.__version__} says: {_first_sentence(error)}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        device = os.environ.get("FLUX_DEVICE", "").strip()
        by = f"FLUX_DEVICE={device}, and so " if device else ""
        yield f"{by}CUDA_VISIBLE_DEVICES={hidden} hides all other GPUs"


def _first_sentence(error: Exception) -> str:
    return re.split(r"\. |\n", str(error).strip(), maxsplit=1)[0].rstrip(".")


def _of_kernel() -> Iterator[str]:
    gpus = sum(_is_gpu(device) for device in _PCI.glob("*"))
    driver = nvidia_driver.version()
    if driver:
        yield f"NVIDIA driver {driver} is loaded, nvidia-smi shows its GPUs"
    elif gpus:
        yield f"{gpus} NVIDIA GPUs on the PCI bus, but the NVIDIA driver is not loaded"
    else:
        yield "no NVIDIA GPU on the PCI bus, and the NVIDIA driver is not loaded"


def _is_gpu(device: Path) -> bool:
    try:
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor == _NVIDIA and kind.startswith(_DISPLAYS)


def _of_neuron() -> Iterator[str]:
    devices = backend_neuron.devices()
    if devices and not backend_neuron.installed():
        yield (
            f"{devices} Neuron devices, but optimum-neuron is not installed: use the environment of"
            " provision/locks/worker-neuron.in"
        )
    elif devices:
        yield f"{devices} Neuron devices, which FLUX_BACKEND=neuron uses"
