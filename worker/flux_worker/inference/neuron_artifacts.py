"""Models compiled for Neuron: one folder per image size, made while baking and only read afterwards.

optimum-neuron compiles all parts of the model for fixed shapes (`python -m optimum.exporters.neuron`) into a
folder that NeuronFluxPipeline loads; `compiled.json` in it has the commit, shape and versions.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ConfigurationError, WorkerError
from .checkpoint import Checkpoint
from .compilation import Shape

LIBRARIES = ("torch", "diffusers", "transformers", "optimum-neuron", "torch-neuronx", "neuronx-cc")
CORES = 8
"""The number of NeuronCores for the model: what optimum-neuron recommends for FLUX, on inf2.24xlarge."""
FAMILY = "inf2"

_FACTS = "compiled.json"


class Facts(BaseModel):
    """From what, for what and with what a folder was compiled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    revision: str
    width: int
    height: int
    tokens: int
    cores: int
    versions: Mapping[str, str]

    @property
    def shape(self) -> Shape:
        """The shape of its images."""
        return Shape(self.width, self.height, self.tokens)


def versions() -> dict[str, str]:
    """The versions of the packages that compile and load. Raises ConfigurationError if one is missing."""
    try:
        return {name: importlib.metadata.version(name) for name in LIBRARIES}
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed: FLUX_BACKEND=neuron needs the environment that "
            "provision/locks/worker-neuron.in describes; FLUX_BACKEND=cpu works without it, slowly"
        ) from error


def find(folder: Path | None, revision: str) -> dict[Path, Facts]:
    """All models compiled from this revision with these versions. Raises ConfigurationError if none."""
    if folder is None:
        raise ConfigurationError("FLUX_NEURON_DIR is not set: set it to the folder of `flux-worker compile`")
    found = {file.parent: _read(file) for file in sorted(folder.glob(f"*/{_FACTS}"))}
    for place, facts in found.items():
        if facts.revision != revision:
            raise ConfigurationError(
                f"{place} was compiled from commit {facts.revision}, but FLUX_MODEL_REVISION is {revision}"
            )
        if dict(facts.versions) != versions():
            raise ConfigurationError(f"{place} was compiled with other versions: {_differences(facts)}")
    if not found:
        raise ConfigurationError(f"nothing is compiled in FLUX_NEURON_DIR={folder}: {_how()}")
    return found


def _read(file: Path) -> Facts:
    try:
        return Facts.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{file} is not readable: {error}; {_how()}") from error


def _how() -> str:
    return "`flux-worker compile --width W --height H` makes it, which takes an hour or more"


def _differences(facts: Facts) -> str:
    here = versions()
    return ", ".join(
        f"{name} {facts.versions.get(name, 'none')}, but {here[name]} is installed"
        for name in LIBRARIES
        if facts.versions.get(name) != here[name]
    )


def make(checkpoint: Checkpoint, folder: Path, shape: Shape) -> Path:
    """Compile a shape into its own folder below `folder`, atomically.

    Raises ConfigurationError if packages are missing, WorkerError if the compiler fails.
    """
    installed = versions()
    target = folder / f"{shape.width}x{shape.height}-{shape.tokens}"
    if target.exists():
        raise ConfigurationError(f"{target} exists: remove it to compile it again")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as draft:
        made = Path(draft) / "model"
        _export(checkpoint.folder, made, shape, Path(draft) / "work")
        facts = Facts(
            revision=checkpoint.revision,
            width=shape.width,
            height=shape.height,
            tokens=shape.tokens,
            cores=CORES,
            versions=installed,
        )
        (made / _FACTS).write_text(facts.model_dump_json(indent=2) + "\n")
        made.rename(target)
    return target


def _export(model: Path, out: Path, shape: Shape, work: Path) -> None:
    """Run optimum-neuron's exporter, which needs no Neuron device."""
    fixed = {
        "task": "text-to-image",  # the exporter cannot detect it from a local folder
        "instance_type": FAMILY,
        "tensor_parallel_size": CORES,
        "torch_dtype": "bfloat16",
        "auto_cast": "none",
        "batch_size": 1,
        "num_images_per_prompt": 1,
        "width": shape.width,
        "height": shape.height,
        "sequence_length": shape.tokens,
        "compiler_workdir": work,
    }
    options = [part for name, value in fixed.items() for part in (f"--{name}", str(value))]
    # Its cache of compiled parts is on the Hub and in the home; the warm-up validates the result.
    options += ["--disable_neuron_cache", "--disable-validation"]
    command = [sys.executable, "-m", "optimum.exporters.neuron", "--model", str(model), *options, str(out)]
    done = subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False)
    if done.returncode or not (out / "model_index.json").is_file():
        raise WorkerError(
            f"optimum-neuron could not compile {shape} (exit code {done.returncode}); see its output above"
        )
