"""R-OOM: a machine with as much memory, compared with the weights, as a g5.xlarge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bake.instance import KeyPair, user_data
from bake.localcloud import LocalCloud, Settings
from bake.localcloud.machines.cgroups import Cgroups
from bake.ssh import Login, Session, connect
from flux_worker.model_facts import FACTS, GIB

from ..bench import random_flux
from .instances import client, launch

pytestmark = pytest.mark.root
REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
REPO = "models--black-forest-labs--FLUX.1-dev"
CACHE = "/home/ubuntu/part"
PYTHON = "/opt/flux-worker/venv/bin/python"
TYPE, MEMORY = "t3.small", 2 * GIB
# A g5.xlarge's 16 GiB against FLUX.1-dev's 33.7 GB in bfloat16: memory for half of the weights.
SHARE = 16 * GIB / sum(FACTS.weights("bf16").values())

BY_THE_WORKER = """
import os
from flux_worker.inference.model import load
from flux_worker.settings import ModelSettings
print(load(ModelSettings.from_environment(os.environ)).origin.precision)
"""
IN_FLOAT32 = f"""
import torch, diffusers
folder = "{CACHE}/{REPO}/snapshots/{REVISION}"
diffusers.FluxPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
"""


@dataclass(frozen=True)
class Small:
    """The machine, and where the host counts its memory."""

    session: Session
    cgroups: Cgroups

    def load(self, code: str) -> int:
        """Run Python as the worker's user does; its exit code, 128 + 9 where it was killed."""
        # Inside the machine its limit cannot be seen where version 1 of control groups counts memory.
        environment = ["FLUX_BACKEND=cpu", "FLUX_LOAD=mapped", f"FLUX_MODEL_REVISION={REVISION}"]
        environment += [f"HF_HUB_CACHE={CACHE}"]
        # The shell tells a process that was killed from a connection that was lost.
        command = ("sh", "-c", '"$@" >&2; echo $?', "sh", "env", *environment, PYTHON, "-c", code)
        done = self.session.run(*command)
        exit_code = int(done.stdout)
        assert exit_code in (0, 137), done.stderr
        return exit_code

    def killed(self) -> int:
        """How many of the machine's processes the OOM killer ended."""
        assert self.cgroups.memory is not None
        for name in ("memory.events", "memory.oom_control"):
            if (file := self.cgroups.memory / name).exists():
                return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])
        raise AssertionError("the kernel does not count who was killed")


def holes(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
    """A safetensors file of zeros that takes up no room: a header, and nothing written behind it."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hub cache with a part of FLUX.1-dev in its true widths: 4.3 GB in bfloat16, all zeros."""
    folder = tmp_path_factory.mktemp("part")
    snapshot = folder / REPO / "snapshots" / REVISION
    snapshot.parent.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_flux, "save_file", holes)
        patch.setattr(
            random_flux, "_random", lambda _, size: torch.empty(size, dtype=torch.bfloat16, device="meta")
        )
        random_flux.build(snapshot, double_blocks=1, single_blocks=2, t5_blocks=6)
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    assert 0.9 * SHARE < MEMORY / weights < SHARE
    return folder


def without_read_ahead(disk: Path) -> None:
    """It gives the kernel pages to take back at each fault: the machine would hang for minutes instead."""
    [loop] = subprocess.run(
        ["losetup", "--associated", disk, "--noheadings", "--output", "NAME"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    subprocess.run(["blockdev", "--setra", "0", loop], check=True)


@pytest.fixture(scope="module")
def small(cloud: LocalCloud, cloud_settings: Settings, image: str, cache: Path) -> Iterator[Small]:
    """The baked image on the type, with the weights; its worker waits for a queue and holds no memory."""
    key = KeyPair.generate()
    instance, login = launch(cloud, image, user_data([key], {}), TYPE)
    try:
        pinned = Login(login.address, login.user, login.private_key, key.public)
        with connect(pinned) as session:
            session.run("cloud-init", "status", "--wait", check=False)
            archive = subprocess.run(
                ["tar", "--create", "--sparse", "--directory", cache, "."], capture_output=True, check=True
            ).stdout
            session.run("mkdir", CACHE)
            session.run("tar", "--extract", "--directory", CACHE, stdin=archive)
            without_read_ahead(cloud_settings.instances / instance / "disk.img")
            yield Small(session, Cgroups(cloud_settings, instance))
    finally:
        client(cloud, "ec2", "SPOT_AWS_REGION").terminate_instances(InstanceIds=[instance])


def test_the_worker_loads_twice_the_memorys_size(small: Small) -> None:
    assert (small.load(BY_THE_WORKER), small.killed()) == (0, 0)


def test_float32_is_killed_and_the_machine_lives_on(small: Small) -> None:
    assert small.load(IN_FLOAT32) == 137
    assert small.killed() >= 1  # the kernel takes another, too, where the first is slow to die
    assert small.session.run("echo", "still here").stdout == "still here\n"
