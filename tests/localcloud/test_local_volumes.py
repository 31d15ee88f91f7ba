"""Volumes and block device mappings: what EC2 gives, keeps and refuses; no machines are started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .ebs_account import BASE, ELSEWHERE, EbsAccount, ebs_account

pytestmark = pytest.mark.integration

ZONE = "eu-north-1b"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EbsAccount]:
    with ebs_account(tmp_path_factory.mktemp("ebs")) as account:
        yield account


def ebs(device: str, **more: Any) -> dict[str, Any]:
    return {"DeviceName": device, "Ebs": more}


# --- launches ---------------------------------------------------------------------------------------


def test_a_launch_has_the_volumes_that_it_maps(account: EbsAccount) -> None:
    snapshot = account.snapshot(account.volume(Size=3, VolumeType="gp3"))
    instance = account.launch(
        BlockDeviceMappings=[
            ebs("/dev/sdf", VolumeSize=5, VolumeType="io2", Iops=500, DeleteOnTermination=False),
            ebs("/dev/sdg", SnapshotId=snapshot, VolumeType="gp3", Throughput=250),
            ebs("/dev/sdh", VolumeSize=8, Encrypted=True),
        ]
    )
    volumes = account.mapped(instance)
    assert sorted(volumes) == ["/dev/sda1", "/dev/sdf", "/dev/sdg", "/dev/sdh"]
    blank, copied, encrypted = (volumes[device] for device in ("/dev/sdf", "/dev/sdg", "/dev/sdh"))
    assert (blank["Size"], blank["VolumeType"], blank["Iops"], blank["SnapshotId"]) == (5, "io2", 500, "")
    assert (copied["Size"], copied["SnapshotId"], copied["Throughput"]) == (3, snapshot, 250)
    assert (encrypted["Encrypted"], encrypted["VolumeType"]) == (True, "gp2")
    assert blank["Attachments"][0]["DeleteOnTermination"] is False
    assert account.file(blank["VolumeId"]).stat().st_size == 5 << 30
    assert account.file(copied["VolumeId"]).stat().st_size == 3 << 30
    account.call("terminate_instances", InstanceIds=[instance])
    account.wait(lambda: not account.file(copied["VolumeId"]).exists())
    account.wait(lambda: account.described("volume", blank["VolumeId"])["State"] == "available")
    assert account.file(blank["VolumeId"]).exists()
    account.call("delete_volume", VolumeId=blank["VolumeId"])
    assert not account.file(blank["VolumeId"]).exists()


def test_a_root_volume_that_is_kept_can_be_another_instances(account: EbsAccount) -> None:
    first = account.launch(BlockDeviceMappings=[ebs("/dev/sda1", DeleteOnTermination=False)])
    root = account.mapped(first)["/dev/sda1"]["VolumeId"]
    assert not account.file(root).exists()
    account.call("terminate_instances", InstanceIds=[first])
    account.wait(lambda: account.described("volume", root)["State"] == "available")
    assert account.file(root).stat().st_size == 2 << 30
    second = account.launch()
    account.call("stop_instances", InstanceIds=[second])
    own = account.mapped(second)["/dev/sda1"]["VolumeId"]
    account.call("detach_volume", VolumeId=own)
    code, message = account.refused("start_instances", InstanceIds=[second])
    assert (code, "a volume attached at root (/dev/sda1)" in message) == ("InvalidParameterValue", True)
    account.call("attach_volume", VolumeId=root, InstanceId=second, Device="/dev/sda1")
    assert account.instances[second].machine.disk.exists()
    assert not account.file(root).exists()
    account.call("delete_volume", VolumeId=own)
    account.call("terminate_instances", InstanceIds=[second])


@pytest.mark.parametrize(
    ("mapping", "code", "words"),
    [
        pytest.param(
            ebs("/dev/sdf"), "InvalidBlockDeviceMapping", "snapshot ID or volume size", id="nothing"
        ),
        pytest.param(ebs("nonsense", VolumeSize=1), "InvalidBlockDeviceMapping", "device name", id="device"),
        pytest.param(ebs("/dev/sda1", VolumeSize=1), "InvalidBlockDeviceMapping", "smaller", id="too-small"),
        pytest.param(
            ebs("/dev/sdf", SnapshotId="snap-0123456789abcdef0"),
            "InvalidSnapshot.NotFound",
            "",
            id="snapshot",
        ),
        pytest.param(
            {"DeviceName": "/dev/sda1", "NoDevice": ""}, "InvalidBlockDeviceMapping", "root", id="no-root"
        ),
        pytest.param(
            {"DeviceName": "/dev/sdf", "VirtualName": "floppy0"}, "InvalidBlockDeviceMapping", "", id="store"
        ),
        pytest.param(
            ebs("/dev/sdf", VolumeSize=1, VolumeType="gp3", Iops=2), "InvalidParameterValue", "low", id="iops"
        ),
    ],
)
def test_a_mapping_that_ec2_refuses_launches_nothing(
    account: EbsAccount, mapping: Any, code: str, words: str
) -> None:
    before = len(account.call("describe_volumes")["Volumes"]), len(account.instances.all())
    got, message = account.refused(
        "run_instances",
        ImageId=BASE,
        MinCount=1,
        MaxCount=1,
        InstanceType="g6e.xlarge",
        BlockDeviceMappings=[mapping],
    )
    assert (got, words in message) == (code, True), message
    assert (len(account.call("describe_volumes")["Volumes"]), len(account.instances.all())) == before


# --- images -----------------------------------------------------------------------------------------


def test_an_image_has_all_volumes_and_a_launch_of_it_has_them_again(account: EbsAccount) -> None:
    mappings = [
        ebs("/dev/sdf", VolumeSize=4, VolumeType="gp3", Throughput=200, DeleteOnTermination=False),
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral1"},
    ]
    instance = account.launch(BlockDeviceMappings=mappings)
    data = account.mapped(instance)["/dev/sdf"]["VolumeId"]
    with account.file(data).open("r+b") as file:
        file.write(b"what it holds")
    image = account.call(
        "create_image",
        InstanceId=instance,
        Name="all of it",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sdc", "NoDevice": ""},
            ebs("/dev/sda1", VolumeSize=6, DeleteOnTermination=False),
            ebs("/dev/sdg", VolumeSize=2),
        ],
    )["ImageId"]
    found = {one["DeviceName"]: one for one in account.available(image)["BlockDeviceMappings"]}
    assert sorted(found) == ["/dev/sda1", "/dev/sdb", "/dev/sdf", "/dev/sdg"]
    root, more, blank = (found[device]["Ebs"] for device in ("/dev/sda1", "/dev/sdf", "/dev/sdg"))
    assert (root["VolumeSize"], root["DeleteOnTermination"]) == (6, False)
    assert (more["VolumeSize"], more["Throughput"], more["DeleteOnTermination"]) == (4, 200, False)
    assert "SnapshotId" not in blank
    assert account.described("snapshot", root["SnapshotId"])["VolumeSize"] == 2
    assert account.described("snapshot", more["SnapshotId"])["VolumeId"] == data
    assert [one.id for one in account.store.images() if one.id == image] == [image]
    again = account.mapped(account.launch(image, BlockDeviceMappings=[ebs("/dev/sdf", VolumeSize=9)]))
    assert {device: volume["Size"] for device, volume in again.items()} == {
        "/dev/sda1": 6,
        "/dev/sdf": 9,
        "/dev/sdg": 2,
    }
    assert account.file(again["/dev/sdf"]["VolumeId"]).open("rb").read(13) == b"what it holds"
    without = account.launch(image, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "NoDevice": ""}])
    assert sorted(account.mapped(without)) == ["/dev/sda1", "/dev/sdg"]
    code, message = account.refused("delete_snapshot", SnapshotId=more["SnapshotId"])
    assert (code, image in message) == ("InvalidSnapshot.InUse", True)
    removed = account.call("deregister_image", ImageId=image, DeleteAssociatedSnapshots=True)
    assert sorted(one["SnapshotId"] for one in removed["DeleteSnapshotResults"]) == sorted(
        (root["SnapshotId"], more["SnapshotId"])
    )
    for gone in (root["SnapshotId"], more["SnapshotId"]):
        assert account.refused("describe_snapshots", SnapshotIds=[gone])[0] == "InvalidSnapshot.NotFound"
    assert account.refused("describe_images", ImageIds=[image])[0] == "InvalidAMIID.NotFound"
    assert account.refused("deregister_image", ImageId=image)[0] == "InvalidAMIID.NotFound"


def test_an_image_can_not_shrink_or_encrypt_what_it_copies(account: EbsAccount) -> None:
    instance = account.launch(BlockDeviceMappings=[ebs("/dev/sdf", VolumeSize=4)])
    for mapping, words in (
        (ebs("/dev/sdf", VolumeSize=3), "smaller"),
        (ebs("/dev/sda1", Encrypted=True), "encrypted flag"),
        ({"DeviceName": "/dev/sda1", "NoDevice": ""}, "root"),
    ):
        code, message = account.refused(
            "create_image", InstanceId=instance, Name="not made", BlockDeviceMappings=[mapping]
        )
        assert (code, words in message) == ("InvalidBlockDeviceMapping", True), message
    named = [{"Name": "name", "Values": ["not made"]}]
    assert account.call("describe_images", Filters=named)["Images"] == []


# --- volumes ----------------------------------------------------------------------------------------


def test_a_volume_is_attached_detached_and_deleted(account: EbsAccount) -> None:
    instance, volume = account.launch(), account.volume(Size=1)
    where = {"VolumeId": volume, "InstanceId": instance}
    assert account.refused("detach_volume", **where)[0] == "IncorrectState"
    account.call("attach_volume", Device="/dev/sdf", **where)
    assert account.refused("attach_volume", Device="/dev/sdg", **where)[0] == "VolumeInUse"
    assert account.refused("delete_volume", VolumeId=volume)[0] == "VolumeInUse"
    [mapping] = [
        one
        for one in account.call("describe_instances", InstanceIds=[instance])["Reservations"][0]["Instances"][
            0
        ]["BlockDeviceMappings"]
        if one["DeviceName"] == "/dev/sdf"
    ]
    assert (mapping["Ebs"]["VolumeId"], mapping["Ebs"]["DeleteOnTermination"]) == (volume, False)
    root = account.mapped(instance)["/dev/sda1"]["VolumeId"]
    assert account.refused("detach_volume", VolumeId=root)[0] == "OperationNotPermitted"
    other = account.launch()
    assert (
        account.refused("detach_volume", VolumeId=volume, InstanceId=other)[0] == "InvalidAttachment.NotFound"
    )
    account.call("detach_volume", VolumeId=volume)
    assert account.described("volume", volume)["State"] == "available"
    assert sorted(account.mapped(instance)) == ["/dev/sda1"]
    account.call("delete_volume", VolumeId=volume)
    assert account.refused("describe_volumes", VolumeIds=[volume])[0] == "InvalidVolume.NotFound"


def test_where_a_volume_can_not_be_attached(account: EbsAccount) -> None:
    instance, volume = account.launch(), account.volume(Size=1)
    for device in ("/dev/sda1", "sdz99", ""):
        code, _ = account.refused("attach_volume", VolumeId=volume, InstanceId=instance, Device=device)
        assert code == "InvalidParameterValue", device
    elsewhere = account.volume(Size=1, AvailabilityZone="eu-north-1a")
    code, _ = account.refused("attach_volume", VolumeId=elsewhere, InstanceId=instance, Device="/dev/sdf")
    assert code == "InvalidVolume.ZoneMismatch"
    account.call("terminate_instances", InstanceIds=[instance])
    account.wait(lambda: account.instances[instance].state == "terminated")
    code, _ = account.refused("attach_volume", VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    assert code == "IncorrectState"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        pytest.param({}, "MissingParameter", id="size"),
        pytest.param({"Size": 1, "AvailabilityZone": "eu-north-1z"}, "InvalidZone.NotFound", id="zone"),
        pytest.param({"Size": 1, "VolumeType": "gp9"}, "InvalidParameterValue", id="type"),
        pytest.param({"Size": 70000, "VolumeType": "gp3"}, "InvalidParameterValue", id="large"),
        pytest.param({"Size": 4, "VolumeType": "io1"}, "MissingParameter", id="iops"),
        pytest.param(
            {"Size": 10, "VolumeType": "gp3", "Throughput": 1000}, "InvalidParameterCombination", id="ratio"
        ),
        pytest.param({"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound", id="snapshot"),
        pytest.param(
            {"SnapshotId": "snap-00000000000000001", "Size": 1}, "InvalidParameterValue", id="smaller"
        ),
        pytest.param({"Size": 1, "KmsKeyId": "alias/x"}, "InvalidParameterDependency", id="key"),
    ],
)
def test_a_volume_that_ec2_does_not_make(account: EbsAccount, parameters: Any, code: str) -> None:
    before = len(account.call("describe_volumes")["Volumes"])
    assert account.refused("create_volume", **{"AvailabilityZone": ZONE, **parameters})[0] == code
    assert len(account.call("describe_volumes")["Volumes"]) == before


def test_a_modified_volume_is_really_larger(account: EbsAccount) -> None:
    volume = account.volume(Size=1, VolumeType="gp2")
    account.call("modify_volume", VolumeId=volume, Size=3, VolumeType="gp3", Throughput=300, Iops=3000)
    assert account.file(volume).stat().st_size == 3 << 30
    found = account.described("volume", volume)
    assert (found["Size"], found["VolumeType"], found["Throughput"]) == (3, "gp3", 300)
    assert account.refused("modify_volume", VolumeId=volume, Size=5)[0] == "VolumeModificationRateExceeded"
    code, message = account.refused("modify_volume", VolumeId=account.volume(Size=2), Size=1)
    assert (code, "smaller" in message) == ("InvalidParameterValue", True)


def test_a_snapshot_stays_as_large_as_its_volume_was(account: EbsAccount) -> None:
    volume = account.volume(Size=1)
    snapshot = account.snapshot(volume)
    account.call("modify_volume", VolumeId=volume, Size=3)
    assert account.described("snapshot", snapshot)["VolumeSize"] == 1


def test_snapshots_of_all_volumes_at_once(account: EbsAccount) -> None:
    instance = account.launch(BlockDeviceMappings=[ebs("/dev/sdf", VolumeSize=4)])
    volumes = {device: volume["VolumeId"] for device, volume in account.mapped(instance).items()}
    made = account.call("create_snapshots", InstanceSpecification={"InstanceId": instance})["Snapshots"]
    assert {one["VolumeId"] for one in made} == set(volumes.values())
    data = {"InstanceId": instance, "ExcludeBootVolume": True}
    [one] = account.call("create_snapshots", InstanceSpecification=data)["Snapshots"]
    assert one["VolumeId"] == volumes["/dev/sdf"]
    for snapshot in [*made, one]:
        account.completed(snapshot["SnapshotId"])


def test_machines_live_in_one_region_and_volumes_in_all(account: EbsAccount) -> None:
    code, message = account.refused(
        "run_instances", ELSEWHERE, ImageId=BASE, MinCount=1, MaxCount=1, InstanceType="g6e.xlarge"
    )
    assert (code, "machines live in eu-north-1" in message) == ("UnsupportedOperation", True)
    made = account.call("create_volume", ELSEWHERE, AvailabilityZone=f"{ELSEWHERE}a", Size=1)["VolumeId"]
    account.wait(lambda: account.described("volume", made, ELSEWHERE)["State"] == "available")


def test_volumes_end_with_the_cloud(tmp_path: Path) -> None:
    with ebs_account(tmp_path) as account:
        volume = account.volume(Size=1)
        account.instances.terminate_all()
        assert not account.file(volume).exists()
