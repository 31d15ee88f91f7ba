"""Whole bakes with seeded faults: finished images are kept, the rest is removed or named."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.creation import tag_of
from bake.image import STATE_TAG, describe_image
from bake.localcloud import LocalCloud, RemoteFaults
from bake.undo import Undo

from .bakes import ROOT, Outcome, finish, start

if TYPE_CHECKING:
    from bake.aws import Aws
    from tests.conftest import Machine

pytestmark = pytest.mark.root


@pytest.fixture
def profiles(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout's, and `again`, which bakes from the baked image: environment and weights are there."""
    folder = tmp_path / "profiles"
    shutil.copytree(ROOT / "profiles", folder)
    (folder / "again.yaml").write_text("extends: g6e-ubuntu\nattest: false\nbase: {ami: '${BAKED_AMI_ID}'}\n")
    monkeypatch.setenv("BAKED_AMI_ID", image)
    return folder


def until(process: subprocess.Popen[str], **wanted: Any) -> list[dict[str, Any]]:
    """Read events up to the wanted one."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if all(seen[-1].get(key) == value for key, value in wanted.items()):
            return seen
    pytest.fail(f"{wanted} never came: {process.communicate()[1]}")


def state(aws: Aws, image: str) -> str:
    facts = describe_image(aws, image)
    return tag_of(facts.get("Tags"), STATE_TAG) if facts else "gone"


def of_run(aws: Aws, run: str) -> list[str]:
    """Instances and key pairs of a run that are there."""
    mine: Any = [{"Name": "tag:bake:run", "Values": [run]}]
    groups = aws.ec2.describe_instances(Filters=mine)["Reservations"]
    found = [one["InstanceId"] for group in groups for one in group["Instances"]
             if one["State"]["Name"] != "terminated"]  # fmt: skip
    return found + [pair["KeyName"] for pair in aws.ec2.describe_key_pairs(Filters=mine)["KeyPairs"]]


def images_of_run(aws: Aws, run: str) -> list[str]:
    mine: Any = [{"Name": "tag:bake:run", "Values": [run]}]
    return [one["ImageId"] for one in aws.ec2.describe_images(Filters=mine)["Images"]]


def boot_check(desk: Path, image: str, *more: str) -> Outcome:
    """`bake boot-check AMI --rehearse --json`."""
    command = [sys.executable, "-m", "bake.cli", "--profiles", str(more[0] if more else ROOT / "profiles")]
    process = subprocess.Popen(
        [*command, "boot-check", image, "--rehearse", "--json"],
        cwd=desk,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return finish(process, desk)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk for the runs that is full after a few files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "bake-test", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_bake_outlasts_all_that_passes_and_a_full_disk(
    machine: Machine, faults: RemoteFaults, profiles: Path, tmp_path: Path, tiny_disk: Path
) -> None:
    """Lost answers, throttling, ids that are not there yet, a quota, a late state: none ends a bake."""
    for action in (
        "ImportKeyPair",
        "RunInstances",
        "CreateImage",
        "CreateBucket",
        "CreateEventBus",
        "PutRule",
    ):
        faults.plant("*", action, "lost", times=1, caller="host")
    faults.plant("ec2", "DescribeImages", "throttle", times=5, after=3, caller="host")
    faults.plant("ec2", "StopInstances", "error", times=2, caller="host")
    faults.plant("ec2", "CreateImage", "refuse", code="IncorrectState", times=2, caller="host")
    faults.plant("ec2", "*", "not-found", seconds=1.5, caller="host")
    faults.plant(
        "ec2", "RunInstances", "refuse", code="VcpuLimitExceeded", match="boot-check", times=2, caller="host"
    )
    process = start(tmp_path, "again", profiles=profiles, runs=tiny_disk)
    outcome = finish(process, tmp_path)
    assert outcome.code == 0, outcome.errors
    struck = {planted.fault.action + planted.fault.kind: planted.struck for planted in faults.listed()}
    assert all(struck.values()), struck
    notes = " ".join(event["text"] for event in outcome.of("note"))
    assert "No space left on device" in notes
    image = outcome.of("released")[0]["image"]
    assert state(machine.aws, image) == "good"
    run = outcome.of("run")[0]["id"]
    assert of_run(machine.aws, run) == []
    assert images_of_run(machine.aws, run) == [image]


def with_limit(profiles: Path, seconds: int) -> Path:
    """The profiles, of which `again` wants its first image within so many seconds."""
    file = profiles / "again.yaml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith("cold_start:")]
    file.write_text("\n".join([*kept, f"cold_start: {{max_seconds: {seconds}}}", ""]))
    return profiles


def test_an_interrupted_boot_check_keeps_the_image_and_another_proves_it(
    machine: Machine, profiles: Path, tmp_path: Path
) -> None:
    """One whose start is too slow for the profile proves nothing either; without that limit it is good."""
    process = start(tmp_path, "again", profiles=profiles)
    seen = until(process, event="step_started", step="boot check")
    process.send_signal(signal.SIGTERM)
    outcome = finish(process, tmp_path)
    run = next(event["id"] for event in seen if event["event"] == "run")
    assert outcome.code == 5, outcome.errors
    (image,) = images_of_run(machine.aws, run)
    assert f"{image} " in outcome.errors
    assert f"bake boot-check {image} --rehearse" in outcome.errors
    assert state(machine.aws, image) == "unproven"
    assert of_run(machine.aws, run) == []
    report = json.loads((tmp_path / ".bake/runs" / run / "report.json").read_text())
    assert (report["verdict"]["state"], report["image"]["id"], report["pictures"]) == ("unproven", image, [])

    slow = boot_check(tmp_path, image, str(with_limit(profiles, 10)))
    assert slow.code == 4, slow.errors
    assert "cold_start.max_seconds is 10; most of it was" in slow.errors
    assert f"bake boot-check {image} --rehearse" in slow.errors
    assert state(machine.aws, image) == "unproven"
    assert slow.report["verdict"]["state"] == "unproven"
    failed = [one["about"]["id"] for one in slow.report["checks"] if one["outcome"] == "failed"]
    assert failed == ["performance.cold_start"]
    assert slow.report["cold_start"]["seconds"] > slow.report["cold_start"]["max_seconds"] == 10

    proved = boot_check(tmp_path, image, str(with_limit(profiles, 7200)))
    assert proved.code == 0, proved.errors
    assert proved.report["cold_start"]["max_seconds"] == 7200
    assert state(machine.aws, image) == "good"
    assert proved.of("proved")[0]["image"] == image
    assert (proved.report["run"]["command"], proved.report["verdict"]["state"]) == ("boot-check", "good")
    assert {(one["moment"], one["outcome"]) for one in proved.report["checks"]} == {("booted", "passed")}
    assert of_run(machine.aws, proved.of("run")[0]["id"]) == []
    again = boot_check(tmp_path, image, str(profiles))
    assert again.code == 2
    assert "is good already" in again.errors


def test_a_bad_image_is_condemned(machine: Machine, tmp_path: Path) -> None:
    """An AMI of the builder as it came: it boots, and has no worker."""
    ec2, tags = machine.aws.ec2, {"bake:run": "a-run", "bake:profile": "g6e-ubuntu", "bake:state": "unproven"}
    specification: Any = [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        for kind in ("image", "snapshot")
    ]
    image = ec2.create_image(
        InstanceId=machine.instance.id, Name=f"no-worker-{time.time()}", NoReboot=True,
        TagSpecifications=specification,
    )["ImageId"]  # fmt: skip
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    outcome = boot_check(tmp_path, image)
    assert outcome.code == 4, outcome.errors
    assert "has no flux-worker.service" in outcome.errors
    assert f"{image} is bad and was removed" in outcome.errors
    assert state(machine.aws, image) == "gone"
    mine: Any = [{"Name": "tag:bake:run", "Values": ["a-run"]}]
    assert ec2.describe_snapshots(Filters=mine)["Snapshots"] == []


def test_resources_that_cannot_be_removed_are_named_last(
    machine: Machine, faults: RemoteFaults, cloud: LocalCloud, tmp_path: Path
) -> None:
    """The credentials end while the builder runs: with exit code 6, and how to remove it by hand."""
    process = start(tmp_path)
    seen = until(process, event="step_ended", step="launch", outcome="done")
    faults.plant("*", "*", "expired", times=None, caller="host")
    process.send_signal(signal.SIGINT)
    outcome = finish(process, tmp_path)
    faults.clear()
    run = next(event["id"] for event in seen if event["event"] == "run")
    assert outcome.code == 6, outcome.errors
    (instance, key) = of_run(machine.aws, run)
    with Undo() as undo:
        undo.add(key, lambda: machine.aws.ec2.delete_key_pair(KeyName=key), by_hand="")
        undo.add(instance, lambda: machine.aws.ec2.terminate_instances(InstanceIds=[instance]), by_hand="")
    told = outcome.errors[outcome.errors.index("left behind:") :]
    assert "\nerror:" not in told
    assert f"aws ec2 terminate-instances --region eu-north-1 --endpoint-url {cloud.endpoint}" in told
    assert instance in told
    assert f"--key-name {key}" in told
    assert "removed again" not in outcome.errors


def test_a_reader_that_has_gone_ends_the_bake_and_nothing_is_left(machine: Machine, tmp_path: Path) -> None:
    """`bake --json | head -12`."""
    process = start(tmp_path)
    seen = until(process, event="step_started", step="connect")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.wait(timeout=900)
    run = next(event["id"] for event in seen if event["event"] == "run")
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert of_run(machine.aws, run) == []
