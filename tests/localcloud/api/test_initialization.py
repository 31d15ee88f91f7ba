"""The initialization of volumes: the rate that a launch asks for, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.localcloud.recorded_cloud import BASE

from .conftest import Account, new, refusal, wait

pytestmark = pytest.mark.integration

ROOT = "/dev/sda1"


def mapped(device: str = ROOT, **ebs: Any) -> list[dict[str, Any]]:
    return [{"DeviceName": device, "Ebs": ebs}]


def status(account: Account, volume: str) -> Any:
    [found] = account.client("ec2").describe_volume_status(VolumeIds=[volume])["VolumeStatuses"]
    return found


def test_a_launch_asks_for_a_rate(account: Account) -> None:
    volume = account.volume(account.one(BlockDeviceMappings=mapped(VolumeInitializationRate=300)))
    assert volume["VolumeInitializationRate"] == 300
    found = status(account, volume["VolumeId"])
    assert found["AvailabilityZone"] == volume["AvailabilityZone"]
    assert found["InitializationStatusDetails"] == {
        "InitializationType": "provisioned-rate",
        "Progress": 100,
        "EstimatedTimeToCompleteInSeconds": 0,
    }
    assert found["VolumeStatus"]["Status"] == "ok"
    details = {one["Name"]: one["Status"] for one in found["VolumeStatus"]["Details"]}
    assert details == {
        "io-enabled": "passed",
        "io-performance": "not-applicable",
        "initialization-state": "completed",
    }


def test_a_launch_template_asks_for_it_as_well(account: Account) -> None:
    ec2, name = account.client("ec2"), new()
    data = {"BlockDeviceMappings": mapped(VolumeInitializationRate=150)}
    ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    told = ec2.describe_launch_template_versions(LaunchTemplateName=name)["LaunchTemplateVersions"]
    assert told[0]["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"]["VolumeInitializationRate"] == 150
    identity = account.one(LaunchTemplate={"LaunchTemplateName": name})
    assert account.volume(identity)["VolumeInitializationRate"] == 150
    over = mapped(VolumeInitializationRate=200)
    identity = account.one(LaunchTemplate={"LaunchTemplateName": name}, BlockDeviceMappings=over)
    assert account.volume(identity)["VolumeInitializationRate"] == 200


def test_without_one_a_volume_is_initialized_at_the_default_rate(account: Account) -> None:
    volume = account.volume(account.one())
    assert "VolumeInitializationRate" not in volume
    details = status(account, volume["VolumeId"])["InitializationStatusDetails"]
    assert details == {"InitializationType": "default", "Progress": 100}


def test_an_empty_volume_needs_no_initialization(account: Account) -> None:
    ec2, zone = account.client("ec2"), "eu-north-1b"
    snapshot = ec2.describe_images(ImageIds=[BASE])["Images"][0]["BlockDeviceMappings"][0]["Ebs"][
        "SnapshotId"
    ]
    empty = ec2.create_volume(Size=1, AvailabilityZone=zone)["VolumeId"]
    full = ec2.create_volume(SnapshotId=snapshot, AvailabilityZone=zone, VolumeInitializationRate=100)
    try:
        assert full["VolumeInitializationRate"] == 100
        assert "InitializationStatusDetails" not in status(account, empty)
        assert status(account, full["VolumeId"])["InitializationStatusDetails"]["Progress"] == 100
        page = ec2.describe_volume_status(
            MaxResults=5, Filters=[{"Name": "availability-zone", "Values": [zone]}]
        )
        assert {empty, full["VolumeId"]} <= {one["VolumeId"] for one in page["VolumeStatuses"]}
    finally:
        for volume in (empty, full["VolumeId"]):
            wait(
                lambda volume=volume: (
                    ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] != "creating"
                )
            )  # type: ignore[misc]
            ec2.delete_volume(VolumeId=volume)


@pytest.mark.parametrize(
    ("mappings", "code"),
    [
        pytest.param(mapped(VolumeInitializationRate=99), "InvalidParameterValue", id="too-low"),
        pytest.param(mapped(VolumeInitializationRate=301), "InvalidParameterValue", id="too-high"),
        pytest.param(
            mapped("/dev/sdf", VolumeSize=1, VolumeInitializationRate=100),
            "InvalidParameterCombination",
            id="without-a-snapshot",
        ),
    ],
)
def test_a_launch_with_another_rate_is_refused(
    account: Account, mappings: list[dict[str, Any]], code: str
) -> None:
    assert refusal(account.launch, BlockDeviceMappings=mappings) == (code, 400)
    assert refusal(account.launch, BlockDeviceMappings=mappings, DryRun=True) == (code, 400)


def test_calls_that_take_no_rate_refuse_it(account: Account) -> None:
    ec2, identity = account.client("ec2"), account.one()
    told = ("InvalidParameterCombination", 400)
    mappings = mapped(VolumeInitializationRate=100)
    assert refusal(ec2.create_image, InstanceId=identity, Name=new(), BlockDeviceMappings=mappings) == told
    register = {"Name": new(), "RootDeviceName": ROOT, "BlockDeviceMappings": mappings}
    assert refusal(ec2.register_image, **register) == told
    assert refusal(
        ec2.create_volume, Size=1, AvailabilityZone="eu-north-1b", VolumeInitializationRate=100
    ) == told  # fmt: skip
    assert refusal(ec2.describe_volume_status, DryRun=True) == ("DryRunOperation", 412)
