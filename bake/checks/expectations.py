"""What the checks expect of a machine; made by the controller from the plan and from AWS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bake import layout
from bake.checks.baseline import Baseline
from bake.checks.result import Moment
from bake.errors import BakeError


@dataclass(frozen=True)
class Expectations:
    """The agreed state of one machine. Sizes of volumes are GiB, sizes of files bytes."""

    os_ids: frozenset[str]
    """What `ID=` in /etc/os-release may say: `ubuntu`; `debian` where a stand-in base is used."""
    packages: str
    """The package manager's database: `apt` or `rpm`."""
    system_python: tuple[str, ...]
    """The packages of the system's own Python, as patterns."""
    user: str
    home: str
    cache_dir: str
    """The Hugging Face cache, absolute: what `HF_HUB_CACHE` must be."""
    repo: str
    revision: str
    """The commit, 40 hex digits."""
    files: Mapping[str, int]
    """Path inside the snapshot -> bytes: exactly what the cache must hold; empty if int8 replaced it."""
    digests: Mapping[str, str]
    """Path inside the snapshot -> the locked hash (sha256, or git blob id), which names the file's blob."""
    root_volume_gib: int
    root_volume_type: str
    volume_gib: int | None
    """The root volume as DescribeVolumes reports it; None where nobody asked AWS."""
    volume_type: str | None
    python: str
    """Minor version of the worker's Python, such as `3.11`."""
    region: str
    """Where the machine runs."""
    token: str | None = field(default=None, repr=False)
    """The Hugging Face token of the download, which is searched for and never shown."""
    accelerator: str = "cuda"
    backend: str = "cuda"
    """The worker's backend: cuda, neuron or cpu."""
    drawn_on: str = "cuda"
    """The backend of a booted worker, which differs where instances have no accelerator: in rehearsals."""
    device: bool = False
    """Whether the machine has the accelerator; without it, checks that need one are left out."""
    cuda: int | None = None
    """The CUDA version of the locked torch; None for a build without CUDA."""
    driver_minimum: str | None = None
    """The oldest NVIDIA driver that works; None if none is needed or possible."""
    neuron: Mapping[str, str] = field(default_factory=dict)
    """Packages of the Neuron stack that the profile pins -> versions."""
    precision: str = "bf16"
    """`bf16`, or `int8`: then the worker reads the checkpoint in `model_dir`."""
    worker_env: str = layout.WORKER_ENV
    venv: str = layout.VENV
    model_dir: str = layout.INT8_MODEL
    neuron_venv: str = layout.NEURON_VENV
    neuron_sizes: tuple[str, ...] = ()
    """Image sizes compiled for Neuron; empty for other backends."""
    compiled_sizes: tuple[str, ...] = ()
    """Image sizes that the worker's blocks are compiled for; empty where the builder had no such GPU."""
    removed: tuple[str, ...] = ()
    """Names of what the profile removes from the base AMI."""
    updates: str = "none"
    """What of its distribution the base was brought up to: `none` or `security`."""
    not_updated: tuple[str, ...] = ()
    """Patterns of packages that no update touches: the kernel and what its driver hangs on."""
    baseline: Baseline = field(default_factory=Baseline)
    """The base AMI's own findings, which fail no check unless they would stop the worker."""
    unit: str = layout.SERVICE
    working_directory: str = layout.STATE

    moment: Moment = "sealed"
    """Which checks are run: those of the disk that becomes the image, or those of a booted instance."""

    by_hand: bool = False
    """Whether a person asked for the checks: all of them then, but for those of a builder."""

    def as_json(self) -> str:
        """For a file, without the token and without what opens an account."""
        told: dict[str, Any] = asdict(replace(self, token=None))
        told["os_ids"] = sorted(self.os_ids)
        told["baseline"] = self.baseline.as_dict()
        return json.dumps(told, indent=2) + "\n"

    @classmethod
    def read(cls, file: Path) -> Expectations:
        """What `as_json` wrote; BakeError if it can't be read."""
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            told["baseline"] = Baseline(**told["baseline"])
            told["os_ids"] = frozenset(told["os_ids"])
            return cls(**told)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BakeError(f"{file} does not say what to expect: {error}") from error

    @property
    def serving_venv(self) -> str:
        """The virtual environment that the unit runs."""
        return self.neuron_venv if self.neuron_sizes else self.venv

    @property
    def repo_dir(self) -> str:
        """The repository's folder in the cache, as huggingface_hub names it."""
        return f"{self.cache_dir}/models--{self.repo.replace('/', '--')}"
