"""Backends: their selection, and `neuron` with the local cloud's fake optimum-neuron."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import flux_worker
from bake.localcloud.packages import neuron_sdk
from flux_worker.cli import main
from flux_worker.errors import BadImage, ConfigurationError, InvalidJob
from flux_worker.inference import backend_neuron, capacity, devices, nvidia_driver
from flux_worker.inference.backend_neuron import Verdict
from flux_worker.inference.backend_torch import TorchBackend
from flux_worker.inference.checkpoint import Checkpoint
from flux_worker.inference.model import load
from flux_worker.inference.select_backend import select_backend
from flux_worker.jobspec.job import Job
from flux_worker.model_facts import FACTS
from flux_worker.settings import ModelSettings
from tests.worker.conftest import COMMAND, serve_environment

pytestmark = pytest.mark.integration
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
ROOT = Path(__file__).parents[3]
WORKER = Path(flux_worker.__file__).parents[1]
PINS = neuron_sdk.pins()
SDK = {name: PINS[name] for name in ("optimum-neuron", "torch-neuronx", "neuronx-cc")}
GIB = 1 << 30
Run = Callable[..., Result]


@pytest.fixture
def neuron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with six Neuron devices and optimum-neuron; gives back the folder of its devices."""
    devices, packages = tmp_path / "dev", tmp_path / "packages"
    devices.mkdir()
    for name in [*(f"neuron{number}" for number in range(6)), "neuron_monitor", "null"]:
        (devices / name).touch()
    monkeypatch.setattr(backend_neuron, "_DEV", devices)
    for wheel in neuron_sdk.build(tmp_path / "wheels"):
        zipfile.ZipFile(wheel).extractall(packages)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (packages, WORKER))))
    for name, folder in {"HOME": "home", "NEURON_COMPILE_CACHE_URL": "neuron-compile-cache"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    yield devices
    for name in [name for name in sys.modules if name.partition(".")[0] == "optimum"]:
        del sys.modules[name]


@pytest.fixture
def run(cache: Path, neuron: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command as on an image for Neuron."""
    monkeypatch.setenv("FLUX_MODEL_REVISION", REVISION)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("FLUX_BACKEND", "neuron")
    monkeypatch.setenv("FLUX_NEURON_DIR", str(tmp_path / "compiled"))
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def sized(width: int, height: int) -> list[object]:
    return ["--width", width, "--height", height, "--max-sequence-length", 64]


def settings(cache: Path, **more: Any) -> ModelSettings:
    return ModelSettings(FLUX_MODEL_REVISION=REVISION, HF_HUB_CACHE=cache, **more)


def test_what_is_compiled_is_drawn_as_on_the_cpu(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("compile", *sized(256, 320))
    assert done.exit_code == 0, done.output
    assert f"Compiled 256x320 with 64 tokens into {tmp_path}/compiled/256x320-64 in " in done.output
    command = ["draw", "--prompt", "a cat", "--steps", 2, "--seed", 7, *sized(256, 320), "--out"]
    drawn = run(*command, tmp_path / "neuron.png")
    assert drawn.exit_code == 0, drawn.output
    assert "Loaded FLUX.1-dev in bf16 on neuron" in drawn.output
    monkeypatch.setenv("FLUX_BACKEND", "cpu")
    assert run(*command, tmp_path / "cpu.png").exit_code == 0
    ours, theirs = (Image.open(tmp_path / f"{name}.png") for name in ("neuron", "cpu"))
    assert ours.tobytes() == theirs.tobytes()
    parameters = json.loads(ours.text["parameters"])  # type: ignore[attr-defined]
    assert parameters["precision"] == "bf16"


def test_each_compiled_size_is_drawn_and_every_other_refused(run: Run, cache: Path, tmp_path: Path) -> None:
    for size in ((256, 320), (256, 256)):
        assert run("compile", *sized(*size)).exit_code == 0
    model = load(settings(cache, FLUX_BACKEND="neuron", FLUX_NEURON_DIR=tmp_path / "compiled"))
    assert (model.origin.device, model.device) == ("neuron", "neuron")
    assert model.origin.versions.items() >= SDK.items()
    steps: list[int] = []
    model.warm_up(steps.append)
    assert steps == [1, 2, 1, 2]
    sizes = {"width": 256, "height": 320, "max_sequence_length": 64}
    job = Job(id="a", prompt="a cat", steps=1, **sizes)  # type: ignore[arg-type]
    model.check(job)
    assert model.generate(job).images[0].size == (256, 320)
    for other in ({"height": 272}, {"max_sequence_length": 512}):
        with pytest.raises(
            InvalidJob, match="only 256x256 with 64 tokens, 256x320 with 64 tokens"
        ) as refused:
            model.check(job.model_copy(update=other))
        assert refused.value.job_id == "a"
    with pytest.raises(InvalidJob, match="at most 64 are allowed"):
        model.check(job.model_copy(update={"prompt": "a cat " * 100}))
    model.pipeline.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(BadImage, match="the pixels that the VAE decoded are not finite"):
        model.warm_up()


def test_a_refused_size_is_a_usage_error_by_hand(run: Run, tmp_path: Path) -> None:
    assert run("compile", *sized(256, 320)).exit_code == 0
    done = run("draw", "--prompt", "a cat", "--out", tmp_path / "cat.png")
    assert done.exit_code == 2
    assert "1024x1024 with 512 tokens is not compiled for Neuron here, only 256x320 with 64" in done.output


def test_what_was_compiled_otherwise_is_not_used(run: Run, tmp_path: Path) -> None:
    assert "nothing is compiled in FLUX_NEURON_DIR" in run("check").output
    assert run("compile", *sized(256, 320)).exit_code == 0
    assert "exists" in run("compile", *sized(256, 320)).output
    file = tmp_path / "compiled" / "256x320-64" / "compiled.json"
    facts = json.loads(file.read_text())
    for change, said in (
        ({"revision": "0" * 40}, f"compiled from commit {'0' * 40}, but FLUX_MODEL_REVISION is {REVISION}"),
        ({"versions": facts["versions"] | {"neuronx-cc": "2.20"}}, "neuronx-cc 2.20, but 2.21.33363.0 is"),
        ({"height": 256}, "is compiled for 256x320, expected 256x256"),
        ({"width": "wide"}, "is not readable"),
    ):
        file.write_text(json.dumps(facts | change))
        done = run("draw", "--prompt", "a cat", *sized(256, 320), "--out", tmp_path / "cat.png")
        assert (done.exit_code, said in done.output) == (78, True), done.output


def test_a_compiler_that_fails_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_COMPILER_FAILS", "yes")
    done = run("compile", *sized(256, 320))
    assert done.exit_code == 1
    assert "could not compile 256x320 with 64 tokens (exit code 1)" in done.output
    assert list((tmp_path / "compiled").iterdir()) == []


def test_a_bake_compiles_each_size_and_leaves_nothing_else(run: Run, cache: Path, tmp_path: Path) -> None:
    """The bake's script as it is, but for the places."""
    text = (ROOT / "provision" / "compile-neuron.sh").read_text()
    script = tmp_path / "compile-neuron.sh"
    script.write_text(text.replace("/opt/bake/lib", str(tmp_path)).replace("/var/tmp", str(tmp_path)))
    environment = (ROOT / "provision" / "lib" / "environment.sh").read_text()
    (tmp_path / "environment.sh").write_text(environment.replace("/opt/bake/tmp", str(tmp_path / "made")))
    (tmp_path / "made").mkdir()
    command = tmp_path / "neuron-venv" / "bin" / "flux-worker"
    command.parent.mkdir(parents=True)
    path = os.environ.get("PYTHONPATH", "")  # where the stand-in is; the script inherits no such path
    command.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -m flux_worker.cli "$@"\n')
    command.chmod(0o755)
    baked = {"NEURON_SIZES": "256x320 272x256", "MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(cache)}
    baked |= {"NEURON_VENV": str(tmp_path / "neuron-venv"), "NEURON_MODELS": str(tmp_path / "neuron")}
    before = {*tmp_path.iterdir()}
    done = subprocess.run(
        ["bash", str(script)], env=os.environ | baked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "note: compiled 272x256 for Neuron\n" in done.stdout
    assert {*tmp_path.iterdir()} - before == {tmp_path / "neuron"}
    assert sorted(made.name for made in (tmp_path / "neuron").iterdir()) == ["256x320-512", "272x256-512"]


def test_compiling_needs_a_place_and_bfloat16(run: Run, int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("compile", "--width", 100).exit_code == 2
    monkeypatch.setenv("FLUX_MODEL_DIR", str(int8))
    for command in ("compile", "check"):
        done = run(command)
        assert (done.exit_code, "unset FLUX_MODEL_DIR" in done.output) == (78, True)
    monkeypatch.delenv("FLUX_MODEL_DIR")
    monkeypatch.delenv("FLUX_NEURON_DIR")
    for command in ("compile", "check"):
        done = run(command)
        assert (done.exit_code, "FLUX_NEURON_DIR is not set" in done.output) == (78, True)


def test_check_tells_what_is_compiled_and_what_is_missing(run: Run, neuron: Path) -> None:
    assert run("compile", *sized(256, 320)).exit_code == 0
    done = run("check")
    assert done.exit_code == 0, done.output
    assert "compiled    256x320 with 64 tokens" in done.output
    assert "8 NeuronCores of 12 (6 devices of 2)" in done.output
    assert "experimental" in done.output
    for number in range(1, 6):
        (neuron / f"neuron{number}").unlink()
    found = run("check", "--json")
    assert found.exit_code == 78
    told = json.loads(found.output)["neuron"]
    assert (told["fits"], told["devices"], told["cores_needed"]) == (False, 1, 8)
    drawn = run("draw", "--prompt", "a cat", "--out", "cat.png")
    assert drawn.exit_code == 78
    assert "8 NeuronCores of 2 (1 devices of 2)" in drawn.output
    assert "inf2.24xlarge and inf2.48xlarge hold it" in drawn.output


class Whole(Checkpoint):
    """Stands for FLUX.1-dev's files, by their sizes."""

    def weights(self) -> dict[str, int]:
        return FACTS.weights("bf16")


@pytest.mark.parametrize(
    ("devices", "sizes", "ram_gib", "fits"),
    [
        pytest.param(1, 1, 15, False, id="inf2.xlarge"),
        pytest.param(1, 1, 125, False, id="inf2.8xlarge"),
        pytest.param(6, 1, 380, True, id="inf2.24xlarge"),
        pytest.param(6, 3, 380, True, id="inf2.24xlarge-three-sizes"),
        pytest.param(6, 4, 380, False, id="inf2.24xlarge-four-sizes"),
        pytest.param(12, 1, 760, True, id="inf2.48xlarge"),
        pytest.param(6, 1, 16, False, id="too-little-RAM"),
    ],
)
def test_which_machine_holds_how_many_sizes(
    devices: int, sizes: int, ram_gib: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_neuron, "devices", lambda: devices)
    monkeypatch.setattr(backend_neuron, "available_ram", lambda: ram_gib * GIB)
    monkeypatch.setattr(backend_neuron.neuron_artifacts, "find", lambda *_: dict.fromkeys(range(sizes)))
    verdict: Verdict = backend_neuron.NeuronBackend(tmp_path)._verdict(Whole(tmp_path, REVISION, "bf16"))
    assert verdict.fits == fits


def test_the_backend_follows_from_the_settings_or_the_machine(
    neuron: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert select_backend(settings(cache)).name == "neuron"  # no GPU here, but six devices
    with monkeypatch.context() as without:
        without.setattr(backend_neuron, "installed", lambda: False)
        with pytest.raises(ConfigurationError, match="6 Neuron devices, but optimum-neuron is not installed"):
            select_backend(settings(cache))
    assert select_backend(settings(cache, FLUX_BACKEND="cpu")).name == "cpu"
    for device in neuron.glob("neuron?"):
        device.unlink()
    with pytest.raises(ConfigurationError, match=r"no GPU that torch can see: .* FLUX_BACKEND=cpu uses the"):
        select_backend(settings(cache))
    with pytest.raises(ConfigurationError, match="FLUX_BACKEND=tpu: Input should be 'auto', 'cuda'"):
        ModelSettings.from_environment({"FLUX_MODEL_REVISION": REVISION, "FLUX_BACKEND": "tpu"})


def test_cuda_without_a_gpu_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "this_machine", lambda: capacity.Machine(None, 16 * GIB, 15 * GIB, 4))
    with pytest.raises(ConfigurationError, match=r"torch finds no GPU: .* FLUX_BACKEND=cpu uses the CPU"):
        load(settings(cache, FLUX_BACKEND="cuda"))


def test_serve_never_takes_the_cpu_by_itself(cache: Path, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    aws: Any = SimpleNamespace(endpoint=nowhere, jobs=f"{nowhere}/1/jobs", bucket="bucket", bus="bus")
    environment = serve_environment(aws, cache, tmp_path) | {"FLUX_BACKEND": "auto"}
    done = subprocess.run([COMMAND, "serve"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 78, done.stderr
    assert "FLUX_BACKEND=auto finds no GPU that torch can see: " in done.stderr
    assert "FLUX_BACKEND=cpu uses the CPU" in done.stderr


GPU = {"vendor": "0x10de\n", "class": "0x030200\n"}
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
OLD = (
    "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by"
    " downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)


@pytest.mark.parametrize(
    ("torchs", "pci", "driver", "hidden", "told"),
    [
        pytest.param(
            RuntimeError(OLD),
            [GPU],
            DRIVER,
            None,
            "torch 2 says: The NVIDIA driver on your system is too old (found version 12020);"
            " NVIDIA driver 535.183.01 is loaded, nvidia-smi shows its GPUs",
            id="driver-too-old",
        ),
        pytest.param(
            RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
            [GPU, GPU, {"vendor": "0x1d0f\n", "class": "0x020000\n"}, {}],
            None,
            None,
            "torch 2 says: Found no NVIDIA driver on your system; 2 NVIDIA GPUs on the PCI bus, but"
            " the NVIDIA driver is not loaded",
            id="driver-not-loaded",
        ),
        pytest.param(
            AssertionError("Torch not compiled with CUDA enabled"),
            [GPU],
            DRIVER,
            None,
            "torch 2 says: Torch not compiled with CUDA enabled; NVIDIA driver 535.183.01 is loaded,"
            " nvidia-smi shows its GPUs",
            id="torch-for-the-cpu",
        ),
        pytest.param(
            RuntimeError("No CUDA GPUs are available"),
            [GPU],
            DRIVER,
            "",
            "torch 2 says: No CUDA GPUs are available; CUDA_VISIBLE_DEVICES= hides all other GPUs;"
            " NVIDIA driver 535.183.01 is loaded, nvidia-smi shows its GPUs",
            id="hidden",
        ),
        pytest.param(
            RuntimeError("No CUDA GPUs are available"),
            [],
            None,
            None,
            "torch 2 says: No CUDA GPUs are available; no NVIDIA GPU on the PCI bus, and the NVIDIA"
            " driver is not loaded",
            id="none",
        ),
    ],
)
def test_what_keeps_a_gpu_from_torch_is_told(
    torchs: Exception,
    pci: list[dict[str, str]],
    driver: str | None,
    hidden: str | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel's files, and what torch says where it finds nothing."""
    import torch

    def init() -> None:
        raise torchs

    for number, files in enumerate(pci):
        device = tmp_path / "pci" / f"0000:00:{number:02}.0"
        device.mkdir(parents=True)
        for name, content in files.items():
            (device / name).write_text(content)
    if driver:
        (tmp_path / "version").write_text(driver)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch, "__version__", "2")
    monkeypatch.setattr(devices, "_PCI", tmp_path / "pci")
    monkeypatch.setattr(nvidia_driver, "_FILE", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.describe_gpu() == told


def test_a_device_that_failed_ends_the_process_and_another_error_does_not() -> None:
    import torch

    neuron, gpu = backend_neuron.NeuronBackend(None), TorchBackend("cuda")
    assert neuron.is_fatal(RuntimeError("nrt_execute failed with status 1203"))
    assert not neuron.is_fatal(RuntimeError("shapes cannot be multiplied"))
    assert not neuron.is_fatal(ValueError("neuron"))
    assert gpu.is_fatal(torch.AcceleratorError("an illegal memory access was encountered"))
    assert not gpu.is_fatal(torch.OutOfMemoryError("out of memory"))


def test_without_its_packages_neuron_says_what_is_missing(cache: Path, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(WORKER),
        "FLUX_MODEL_REVISION": REVISION,
        "HF_HUB_CACHE": str(cache),
        "FLUX_BACKEND": "neuron",
        "FLUX_NEURON_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "flux_worker.cli", "draw", "--prompt", "a cat", "--out", "cat.png"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 78, done.stderr
    assert re.search(r"^flux-worker: optimum-neuron is not installed", done.stderr, re.M)
    assert list(tmp_path.iterdir()) == []
