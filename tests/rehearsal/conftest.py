"""One booted builder for all cases that need a machine and no whole bake, one baked image for the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake.localcloud.cloud import LocalCloud

from .instances import client

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def machine(new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine() as machine:
        yield machine
    ours = [{"Name": "tag:bake:run", "Values": [machine.run.id]}]
    left = machine.aws.ec2.describe_instances(Filters=ours)  # type: ignore[arg-type]
    states = {item["State"]["Name"] for group in left["Reservations"] for item in group["Instances"]}
    assert states <= {"terminated"}
    assert not machine.aws.ec2.describe_key_pairs(Filters=ours)["KeyPairs"]  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def image(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of g6e-ubuntu: one that was baked on this cloud already, else a new one."""
    ec2 = client(cloud, "ec2", "SPOT_AWS_REGION")
    baked = [{"Name": "tag:bake:profile", "Values": ["g6e-ubuntu"]}]
    if not ec2.describe_images(Owners=["self"], Filters=baked)["Images"]:
        command = [sys.executable, "-m", "bake.cli", "--profile", "g6e-ubuntu", "--rehearse", "--runs"]
        runs = str(tmp_path_factory.mktemp("runs"))
        done = subprocess.run([*command, runs], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    images = ec2.describe_images(Owners=["self"], Filters=baked)["Images"]
    return str(max(images, key=lambda found: found["CreationDate"])["ImageId"])
