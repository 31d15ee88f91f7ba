"""EC2 as an instance sees it, from a fake server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from flux_worker.host import interruption, regional
from flux_worker.host.imds import Imds
from flux_worker.host.interruption import InterruptionWatcher
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.host.stop import StopRequest
from tests.worker.conftest import CREDENTIALS

STAND_IN = Path(__file__).with_name("fake_ec2.py")
REGION = "eu-north-1"  # the instance's, which is not the queue's


@dataclass
class Ec2:
    """An instance's view of EC2; a file in its folder is what the metadata service tells."""

    folder: Path
    endpoint: str

    def tell(self, path: str, text: str) -> None:
        self.write(f"meta-data/{path}", text)

    def write(self, name: str, text: str) -> None:
        """Whole at once: the stand-in may read it at any moment."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(file)

    def spot(self, seconds: float) -> None:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        self.tell(
            "spot/instance-action", json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
        )

    def maintenance(self, *events: dict[str, str]) -> None:
        self.tell("events/maintenance/scheduled", json.dumps(events))

    def state(self, name: str) -> None:
        self.write("state", name)

    def completed(self) -> list[str]:
        file = self.folder / "completed"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoint}


@pytest.fixture
def ec2(tmp_path: Path, endpoint: str) -> Iterator[Ec2]:
    """The stand-in, as a process of its own."""
    folder = tmp_path / "ec2"
    folder.mkdir()
    command = [sys.executable, str(STAND_IN), str(folder), endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            ec2 = Ec2(folder, f"http://127.0.0.1:{process.stdout.readline().strip()}")
            ec2.tell("instance-id", "i-0123456789abcdef0")
            ec2.tell("placement/region", REGION)
            ec2.state("InService")
            yield ec2
        finally:
            process.kill()


@pytest.fixture
def scaling(endpoint: str) -> Any:
    """A client of Auto Scaling, of moto itself."""
    service: Any = {"endpoint_url": endpoint, "region_name": REGION}
    keys: Any = {name.lower(): value for name, value in CREDENTIALS.items()}
    return boto3.client("autoscaling", **service, **keys)


def put_hook(scaling: Any, group: str, name: str, change: str, **more: Any) -> None:
    """Give the group a lifecycle hook."""
    scaling.put_lifecycle_hook(
        AutoScalingGroupName=group,
        LifecycleHookName=name,
        LifecycleTransition=f"autoscaling:EC2_INSTANCE_{change}",
        **more,
    )


@contextlib.contextmanager
def grouped(ec2: Ec2, scaling: Any) -> Iterator[str]:
    """The instance is in a new group with a hook for launching, and two for terminating; the group's name."""
    name = ec2.folder.parent.name
    scaling.create_launch_configuration(
        LaunchConfigurationName=name, ImageId="ami-0123456789abcdef0", InstanceType="g6e.xlarge"
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchConfigurationName=name,
        MinSize=1,
        MaxSize=1,
        AvailabilityZones=[f"{REGION}a"],
    )
    for hook, change in (("ready", "LAUNCHING"), ("over", "TERMINATING"), ("drained", "TERMINATING")):
        put_hook(scaling, name, hook, change)
    found = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    ec2.tell("instance-id", found["Instances"][0]["InstanceId"])
    ec2.tell("autoscaling/target-lifecycle-state", "InService")
    yield name
    scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
    scaling.delete_launch_configuration(LaunchConfigurationName=name)


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(Notifier({}))


@pytest.fixture
def watch(
    ec2: Ec2, stop: StopRequest, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InterruptionWatcher]:
    monkeypatch.setattr(interruption, "LOOK_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(interruption, "_LAST_SECONDS", 60)
    # A call that is given up is made again, and a hook would be completed twice.
    monkeypatch.setattr(regional, "_CONNECT_SECONDS", 60)
    monkeypatch.setattr(regional, "_READ_SECONDS", 60)
    imds = Imds(ec2.environment, patience=60)
    watching = InterruptionWatcher(stop, monitor, imds, region=None, drain_seconds=90)
    yield watching
    watching._on_instance = False
    # It sends signals, which only have a handler while `stop` lives.
    for thread in threading.enumerate():
        if thread.name == "interruption":
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def group(ec2: Ec2, scaling: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The instance is one of an Auto Scaling group with hooks for both changes."""
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": ec2.endpoint}).items():
        monkeypatch.setenv(name, value)
    with grouped(ec2, scaling) as name:
        yield name


def count(monitor: Monitor, kind: str) -> float | None:
    return monitor.registry.get_sample_value("flux_interruptions_total", {"kind": kind})
