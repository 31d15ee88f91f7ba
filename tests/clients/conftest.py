"""Clients of EC2 that this project did not write, on the tests' cloud: AWS CLI, Ansible, Libcloud, Packer."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bake import localcloud
from bake.localcloud import Delays, LocalCloud, Settings

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv-clients/bin"
PATIENCE = 300.0  # seconds; a busy host is slow


@dataclass(frozen=True)
class Desk:
    """A folder to work in, the account that the client works on, and a name for all that it makes."""

    cloud: LocalCloud
    folder: Path
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """What `bake local env` exports, and nothing of the user's."""
        found = self.cloud.environment
        return {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "AWS_ENDPOINT_URL": self.cloud.endpoint,
            "AWS_ACCESS_KEY_ID": self.cloud.keys.id,
            "AWS_SECRET_ACCESS_KEY": self.cloud.keys.secret,
            "AWS_DEFAULT_REGION": found["SPOT_AWS_REGION"],
            "AWS_REGION": found["SPOT_AWS_REGION"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def key(self) -> Path:
        """A new key pair's private half; its public half is beside it."""
        file = self.folder / "key"
        if not file.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(file)]
            subprocess.run(command, check=True)
        return file

    def call(self, *command: str, **more: str) -> str:
        """Run the client to its end; what it says on stdout."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{command[:4]}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def ssh(self, address: str, command: str) -> str:
        """Run a command on a machine, once it answers."""
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "LogLevel=ERROR",
        )
        words = ["ssh", "-i", str(self.key), *(f"-o{one}" for one in options), f"ubuntu@{address}", command]
        deadline = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return done.stdout.strip()
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.5)


@pytest.fixture
def desk(cloud: LocalCloud, tmp_path: Path) -> Iterator[Desk]:
    with used(cloud, tmp_path) as desk:
        yield desk


@pytest.fixture
def desk_without_delays(own: Settings, tmp_path: Path) -> Iterator[Desk]:
    """On a lenient cloud, for clients that don't survive what AWS shows late."""
    with localcloud.running(print, delays=Delays(lenient=True)) as cloud, used(cloud, tmp_path) as desk:
        yield desk


@contextmanager
def used(cloud: LocalCloud, folder: Path) -> Iterator[Desk]:
    """A desk of whose things none is left in the end."""
    name = f"client-{uuid.uuid4().hex[:8]}"
    desk = Desk(cloud, folder, name)
    yield desk
    deadline = time.monotonic() + 30  # lists tell of an end late
    while found := left(cloud, name):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


def needed(program: str) -> str:
    """The path of a client; the test fails where `make test-clients` has installed none."""
    found = shutil.which(program, path=f"{BIN}:{os.environ['PATH']}")
    if found is None:
        pytest.fail(f"{program} is not installed: make test-clients installs it")
    return found


def left(cloud: LocalCloud, name: str) -> list[str]:
    """What of this name there is: instances that are not terminated, images, snapshots, key pairs, groups."""
    import boto3

    ec2: Any = boto3.client(
        "ec2",
        endpoint_url=cloud.endpoint,
        region_name=cloud.environment["SPOT_AWS_REGION"],
        aws_access_key_id=cloud.keys.id,
        aws_secret_access_key=cloud.keys.secret,
    )
    of_name = [{"Name": "tag:Name", "Values": [f"{name}*"]}]
    found = [
        one["InstanceId"]
        for group in ec2.describe_instances(Filters=of_name)["Reservations"]
        for one in group["Instances"]
        if one["State"]["Name"] != "terminated"
    ]
    images = ec2.describe_images(Owners=["self"])["Images"]
    found += [one["ImageId"] for one in images if one["Name"].startswith(name)]
    pairs = ec2.describe_key_pairs()["KeyPairs"]
    found += [one["KeyName"] for one in pairs if one["KeyName"].startswith(name)]
    snapshots = ec2.describe_snapshots(OwnerIds=["self"], Filters=of_name)["Snapshots"]
    return found + [one["SnapshotId"] for one in snapshots]
