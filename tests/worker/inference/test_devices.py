"""One GPU of several: which one a worker sees."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flux_worker.inference import devices
from tests.worker.conftest import REVISION

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("index", "shown", "visible"),
    [
        pytest.param(1, None, "1", id="all"),
        pytest.param(1, "2, 3", "3", id="of-some"),
        pytest.param(0, "GPU-8f1c,GPU-77aa", "GPU-8f1c", id="by-name"),
        pytest.param(2, "2,3", "", id="beyond"),
        pytest.param(0, "", "", id="of-none"),
    ],
)
def test_a_worker_sees_the_gpu_of_its_index_alone(index: int, shown: str | None, visible: str) -> None:
    environment = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    assert devices.visible(index, environment) == visible


SELECTED = """
import os
from flux_worker.errors import ConfigurationError
from flux_worker.inference.select_backend import select_backend
from flux_worker.settings import ModelSettings
settings = ModelSettings.from_environment(os.environ)
backend = select_backend(settings)
print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER"))
try:
    backend._machine()
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("backend", "device", "told"),
    [("cuda", "5", "5 PCI_BUS_ID"), ("cuda", "", "None None"), ("cpu", "5", "None None")],
)
def test_the_gpu_is_selected_before_cuda_is_asked(backend: str, device: str, told: str) -> None:
    """In a process of its own, since CUDA reads the variable once."""
    environment = {"PATH": os.environ["PATH"], "FLUX_BACKEND": backend, "FLUX_DEVICE": device}
    environment["FLUX_MODEL_REVISION"] = REVISION
    done = subprocess.run([sys.executable, "-c", SELECTED], env=environment, capture_output=True, text=True)
    first, *rest = done.stdout.splitlines()
    assert first == told, done.stderr
    if device and backend == "cuda" and rest:  # no GPU here, as on most machines of tests
        assert "FLUX_DEVICE=5, and so CUDA_VISIBLE_DEVICES=5 hides all other GPUs" in rest[0]
