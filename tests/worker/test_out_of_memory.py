"""The OOM killer (R-OOM): a cgroup gives as much memory against the weights as a g5.xlarge has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import flux_worker
from flux_worker import fit

pytestmark = pytest.mark.root

REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
WORKER = Path(flux_worker.__file__).parents[1]
CGROUPS = Path("/sys/fs/cgroup")
# A g5.xlarge's 16 GiB against FLUX.1-dev's 33.7 GB in bfloat16: memory for half of the weights.
SHARE = 16 * fit.GIB / sum(fit._DEV_BYTES["bf16"].values())

BY_THE_WORKER = """
import os
from flux_worker.model import load
from flux_worker.settings import ModelSettings
print(load(ModelSettings.from_environment(os.environ)).origin.precision)
"""
IN_FLOAT32 = """
import sys, torch, diffusers
diffusers.FluxPipeline.from_pretrained(sys.argv[1], dtype=torch.float32, local_files_only=True)
"""


@dataclass(frozen=True)
class Limited:
    """A cgroup with a limit on memory; version 2, or 1 where the controller is there."""

    folder: Path
    version: int

    @classmethod
    def to(cls, limit: int) -> Limited:
        """A new one that allows so many bytes, and no swap."""
        version = 2 if (CGROUPS / "cgroup.controllers").exists() else 1
        parent = CGROUPS if version == 2 else CGROUPS / "memory"
        if version == 2:
            (parent / "cgroup.subtree_control").write_text("+memory")
        cgroup = cls(parent / f"flux-worker-test-{os.getpid()}", version)
        cgroup.folder.mkdir()
        names = ["memory.max", "memory.swap.max"] if version == 2 else ["memory.limit_in_bytes"]
        for name, value in zip(names, (limit, 0), strict=False):
            (cgroup.folder / name).write_text(str(value))
        return cgroup

    def run(self, *command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.folder)]
        return subprocess.run(
            [*enter, *command], env=environment, capture_output=True, text=True, check=False
        )

    def killed(self) -> int:
        """How many of its processes the OOM killer ended."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        facts = dict(line.split() for line in (self.folder / name).read_text().splitlines())
        return int(facts["oom_kill"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Hub cache with a part of FLUX.1-dev in its true widths, 2.4 GB of zeros in bfloat16."""
    import torch

    from tests.bench import random_flux

    folder = tmp_path_factory.mktemp("part")
    snapshot = folder / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / REVISION
    snapshot.parent.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_flux, "_random", lambda _, size: torch.zeros(size, dtype=torch.bfloat16))
        random_flux.build(snapshot, double_blocks=1, single_blocks=2, t5_blocks=1)
    yield folder
    for file in folder.rglob("*.safetensors"):
        file.unlink()


def weights(cache: Path) -> list[Path]:
    return list(cache.rglob("*.safetensors"))


def from_the_disk(cache: Path) -> None:
    """Drop the files from the page cache: what is in it already is nobody's in the new cgroup."""
    for file in weights(cache):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def machine(cache: Path) -> Iterator[Limited]:
    limited = Limited.to(round(SHARE * sum(file.stat().st_size for file in weights(cache))))
    from_the_disk(cache)
    try:
        yield limited
    finally:
        limited.folder.rmdir()


def load(machine: Limited, cache: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(WORKER),
        "OMP_NUM_THREADS": "1",
        "FLUX_MODEL_REVISION": REVISION,
        "FLUX_BACKEND": "cpu",
        "HF_HUB_CACHE": str(cache),
    }
    snapshot = next(cache.glob("*/snapshots/*"))
    return machine.run(sys.executable, "-c", code, str(snapshot), environment=environment)


def test_the_worker_loads_twice_the_memorys_size(machine: Limited, cache: Path) -> None:
    done = load(machine, cache, BY_THE_WORKER)
    assert (done.returncode, machine.killed()) == (0, 0), done.stderr
    assert done.stdout == "bf16\n"


def test_float32_is_killed(machine: Limited, cache: Path) -> None:
    done = load(machine, cache, IN_FLOAT32)
    assert (done.returncode, machine.killed()) == (-9, 1), done.stderr
