"""Volumes and block device mappings: what EC2 gives, keeps and refuses; no machines are started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .ebs_account import BASE, ELSEWHERE, EbsAccount, copied, ebs_account

pytestmark = pytest.mark.integration

ZONE = "eu-north-1b"


def maps(device: str, **more: Any) -> dict[str, Any]:
    return {"DeviceName": device, "Ebs": more}


# --- launches ---------------------------------------------------------------------------------------


def test_a_launch_has_the_volumes_that_it_maps(ebs: EbsAccount) -> None:
    snapshot = ebs.snapshot(ebs.volume(Size=3, VolumeType="gp3"))
    instance = ebs.launch(
        BlockDeviceMappings=[
            maps("/dev/sdf", VolumeSize=5, VolumeType="io2", Iops=500, DeleteOnTermination=False),
            maps("/dev/sdg", SnapshotId=snapshot, VolumeType="gp3", Throughput=250),
            maps("/dev/sdh", VolumeSize=8, Encrypted=True),
        ]
    )
    volumes = ebs.mapped(instance)
    assert sorted(volumes) == ["/dev/sda1", "/dev/sdf", "/dev/sdg", "/dev/sdh"]
    blank, copied, encrypted = (volumes[device] for device in ("/dev/sdf", "/dev/sdg", "/dev/sdh"))
    assert (blank["Size"], blank["VolumeType"], blank["Iops"], blank["SnapshotId"]) == (5, "io2", 500, "")
    assert (copied["Size"], copied["SnapshotId"], copied["Throughput"]) == (3, snapshot, 250)
    assert (encrypted["Encrypted"], encrypted["VolumeType"]) == (True, "gp2")
    assert blank["Attachments"][0]["DeleteOnTermination"] is False
    assert ebs.file(blank["VolumeId"]).stat().st_size == 5 << 30
    assert ebs.file(copied["VolumeId"]).stat().st_size == 3 << 30
    ebs.call("terminate_instances", InstanceIds=[instance])
    ebs.wait(lambda: not ebs.file(copied["VolumeId"]).exists())
    ebs.wait(lambda: ebs.described("volume", blank["VolumeId"])["State"] == "available")
    assert ebs.file(blank["VolumeId"]).exists()
    ebs.call("delete_volume", VolumeId=blank["VolumeId"])
    assert not ebs.file(blank["VolumeId"]).exists()


def test_a_root_volume_that_is_kept_can_be_another_instances(ebs: EbsAccount) -> None:
    first = ebs.launch(BlockDeviceMappings=[maps("/dev/sda1", DeleteOnTermination=False)])
    root = ebs.mapped(first)["/dev/sda1"]["VolumeId"]
    assert not ebs.file(root).exists()
    ebs.call("terminate_instances", InstanceIds=[first])
    ebs.wait(lambda: ebs.described("volume", root)["State"] == "available")
    assert ebs.file(root).stat().st_size == 2 << 30
    second = ebs.launch()
    ebs.call("stop_instances", InstanceIds=[second])
    own = ebs.mapped(second)["/dev/sda1"]["VolumeId"]
    ebs.call("detach_volume", VolumeId=own)
    code, message = ebs.refused("start_instances", InstanceIds=[second])
    assert (code, "a volume attached at root (/dev/sda1)" in message) == ("InvalidParameterValue", True)
    ebs.call("attach_volume", VolumeId=root, InstanceId=second, Device="/dev/sda1")
    assert ebs.instances[second].machine.disk.exists()
    assert not ebs.file(root).exists()
    ebs.call("delete_volume", VolumeId=own)
    ebs.call("terminate_instances", InstanceIds=[second])


@pytest.mark.parametrize(
    ("mapping", "code", "words"),
    [
        pytest.param(
            maps("/dev/sdf"), "InvalidBlockDeviceMapping", "snapshot ID or volume size", id="nothing"
        ),
        pytest.param(maps("nonsense", VolumeSize=1), "InvalidBlockDeviceMapping", "device name", id="device"),
        pytest.param(maps("/dev/sda1", VolumeSize=1), "InvalidBlockDeviceMapping", "smaller", id="too-small"),
        pytest.param(
            maps("/dev/sdf", SnapshotId="snap-0123456789abcdef0"),
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
            maps("/dev/sdf", VolumeSize=1, VolumeType="gp3", Iops=2),
            "InvalidParameterValue",
            "low",
            id="iops",
        ),
    ],
)
def test_a_mapping_that_ec2_refuses_launches_nothing(
    ebs: EbsAccount, mapping: Any, code: str, words: str
) -> None:
    before = len(ebs.call("describe_volumes")["Volumes"]), len(ebs.instances.all())
    got, message = ebs.refused(
        "run_instances",
        ImageId=BASE,
        MinCount=1,
        MaxCount=1,
        InstanceType="g6e.xlarge",
        BlockDeviceMappings=[mapping],
    )
    assert (got, words in message) == (code, True), message
    assert (len(ebs.call("describe_volumes")["Volumes"]), len(ebs.instances.all())) == before


# --- images -----------------------------------------------------------------------------------------


def test_an_image_has_all_volumes_and_a_launch_of_it_has_them_again(ebs: EbsAccount) -> None:
    mappings = [
        maps("/dev/sdf", VolumeSize=4, VolumeType="gp3", Throughput=200, DeleteOnTermination=False),
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral1"},
    ]
    instance = ebs.launch(BlockDeviceMappings=mappings)
    data = ebs.mapped(instance)["/dev/sdf"]["VolumeId"]
    with ebs.file(data).open("r+b") as file:
        file.write(b"what it holds")
    image = ebs.call(
        "create_image",
        InstanceId=instance,
        Name="all of it",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sdc", "NoDevice": ""},
            maps("/dev/sda1", VolumeSize=6, DeleteOnTermination=False),
            maps("/dev/sdg", VolumeSize=2),
        ],
    )["ImageId"]
    found = {one["DeviceName"]: one for one in ebs.available(image)["BlockDeviceMappings"]}
    assert sorted(found) == ["/dev/sda1", "/dev/sdb", "/dev/sdf", "/dev/sdg"]
    root, more, blank = (found[device]["Ebs"] for device in ("/dev/sda1", "/dev/sdf", "/dev/sdg"))
    assert (root["VolumeSize"], root["DeleteOnTermination"]) == (6, False)
    assert (more["VolumeSize"], more["Throughput"], more["DeleteOnTermination"]) == (4, 200, False)
    assert "SnapshotId" not in blank
    assert ebs.described("snapshot", root["SnapshotId"])["VolumeSize"] == 2
    assert ebs.described("snapshot", more["SnapshotId"])["VolumeId"] == data
    assert [one.id for one in ebs.store.images() if one.id == image] == [image]
    again = ebs.mapped(ebs.launch(image, BlockDeviceMappings=[maps("/dev/sdf", VolumeSize=9)]))
    assert {device: volume["Size"] for device, volume in again.items()} == {
        "/dev/sda1": 6,
        "/dev/sdf": 9,
        "/dev/sdg": 2,
    }
    assert ebs.file(again["/dev/sdf"]["VolumeId"]).open("rb").read(13) == b"what it holds"
    without = ebs.launch(image, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "NoDevice": ""}])
    assert sorted(ebs.mapped(without)) == ["/dev/sda1", "/dev/sdg"]
    code, message = ebs.refused("delete_snapshot", SnapshotId=more["SnapshotId"])
    assert (code, image in message) == ("InvalidSnapshot.InUse", True)
    removed = ebs.call("deregister_image", ImageId=image, DeleteAssociatedSnapshots=True)
    assert sorted(one["SnapshotId"] for one in removed["DeleteSnapshotResults"]) == sorted(
        (root["SnapshotId"], more["SnapshotId"])
    )
    for gone in (root["SnapshotId"], more["SnapshotId"]):
        assert ebs.refused("describe_snapshots", SnapshotIds=[gone])[0] == "InvalidSnapshot.NotFound"
    assert ebs.refused("describe_images", ImageIds=[image])[0] == "InvalidAMIID.NotFound"
    assert ebs.refused("deregister_image", ImageId=image)[0] == "InvalidAMIID.NotFound"


def test_an_image_can_not_shrink_or_encrypt_what_it_copies(ebs: EbsAccount) -> None:
    instance = ebs.launch(BlockDeviceMappings=[maps("/dev/sdf", VolumeSize=4)])
    for mapping, words in (
        (maps("/dev/sdf", VolumeSize=3), "smaller"),
        (maps("/dev/sda1", Encrypted=True), "encrypted flag"),
        ({"DeviceName": "/dev/sda1", "NoDevice": ""}, "root"),
    ):
        code, message = ebs.refused(
            "create_image", InstanceId=instance, Name="not made", BlockDeviceMappings=[mapping]
        )
        assert (code, words in message) == ("InvalidBlockDeviceMapping", True), message
    named = [{"Name": "name", "Values": ["not made"]}]
    assert ebs.call("describe_images", Filters=named)["Images"] == []


# --- volumes ----------------------------------------------------------------------------------------


def test_a_volume_is_attached_detached_and_deleted(ebs: EbsAccount) -> None:
    instance, volume = ebs.launch(), ebs.volume(Size=1)
    where = {"VolumeId": volume, "InstanceId": instance}
    assert ebs.refused("detach_volume", **where)[0] == "IncorrectState"
    ebs.call("attach_volume", Device="/dev/sdf", **where)
    assert ebs.refused("attach_volume", Device="/dev/sdg", **where)[0] == "VolumeInUse"
    assert ebs.refused("delete_volume", VolumeId=volume)[0] == "VolumeInUse"
    [mapping] = [
        one
        for one in ebs.call("describe_instances", InstanceIds=[instance])["Reservations"][0]["Instances"][0][
            "BlockDeviceMappings"
        ]
        if one["DeviceName"] == "/dev/sdf"
    ]
    assert (mapping["Ebs"]["VolumeId"], mapping["Ebs"]["DeleteOnTermination"]) == (volume, False)
    root = ebs.mapped(instance)["/dev/sda1"]["VolumeId"]
    assert ebs.refused("detach_volume", VolumeId=root)[0] == "OperationNotPermitted"
    other = ebs.launch()
    assert ebs.refused("detach_volume", VolumeId=volume, InstanceId=other)[0] == "InvalidAttachment.NotFound"
    ebs.call("detach_volume", VolumeId=volume)
    assert ebs.described("volume", volume)["State"] == "available"
    assert sorted(ebs.mapped(instance)) == ["/dev/sda1"]
    ebs.call("delete_volume", VolumeId=volume)
    assert ebs.refused("describe_volumes", VolumeIds=[volume])[0] == "InvalidVolume.NotFound"


def test_where_a_volume_can_not_be_attached(ebs: EbsAccount) -> None:
    instance, volume = ebs.launch(), ebs.volume(Size=1)
    refused = {"/dev/sda1": "InvalidParameterValue", "sdz99": "InvalidParameterValue", "": "MissingParameter"}
    for device, wanted in refused.items():
        code, _ = ebs.refused("attach_volume", VolumeId=volume, InstanceId=instance, Device=device)
        assert code == wanted, device
    elsewhere = ebs.volume(Size=1, AvailabilityZone="eu-north-1a")
    code, _ = ebs.refused("attach_volume", VolumeId=elsewhere, InstanceId=instance, Device="/dev/sdf")
    assert code == "InvalidVolume.ZoneMismatch"
    ebs.call("terminate_instances", InstanceIds=[instance])
    ebs.wait(lambda: ebs.instances[instance].state == "terminated")
    code, _ = ebs.refused("attach_volume", VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
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
def test_a_volume_that_ec2_does_not_make(ebs: EbsAccount, parameters: Any, code: str) -> None:
    before = len(ebs.call("describe_volumes")["Volumes"])
    assert ebs.refused("create_volume", **{"AvailabilityZone": ZONE, **parameters})[0] == code
    assert len(ebs.call("describe_volumes")["Volumes"]) == before


def test_a_modified_volume_is_really_larger(ebs: EbsAccount) -> None:
    volume = ebs.volume(Size=1, VolumeType="gp2")
    ebs.call("modify_volume", VolumeId=volume, Size=3, VolumeType="gp3", Throughput=300, Iops=3000)
    assert ebs.file(volume).stat().st_size == 3 << 30
    found = ebs.described("volume", volume)
    assert (found["Size"], found["VolumeType"], found["Throughput"]) == (3, "gp3", 300)
    assert ebs.refused("modify_volume", VolumeId=volume, Size=5)[0] == "VolumeModificationRateExceeded"
    code, message = ebs.refused("modify_volume", VolumeId=ebs.volume(Size=2), Size=1)
    assert (code, "smaller" in message) == ("InvalidParameterValue", True)


def test_a_snapshot_stays_as_large_as_its_volume_was(ebs: EbsAccount) -> None:
    volume = ebs.volume(Size=1)
    snapshot = ebs.snapshot(volume)
    ebs.call("modify_volume", VolumeId=volume, Size=3)
    assert ebs.described("snapshot", snapshot)["VolumeSize"] == 1


def test_a_volume_can_be_kept_after_all(ebs: EbsAccount) -> None:
    instance = ebs.launch(BlockDeviceMappings=[maps("/dev/sdf", VolumeSize=1)])
    volume = ebs.mapped(instance)["/dev/sdf"]["VolumeId"]
    kept = [maps("/dev/sdf", DeleteOnTermination=False)]
    ebs.call("modify_instance_attribute", InstanceId=instance, BlockDeviceMappings=kept)
    unknown = [maps("/dev/sdz", DeleteOnTermination=False)]
    code, _ = ebs.refused("modify_instance_attribute", InstanceId=instance, BlockDeviceMappings=unknown)
    assert code == "InvalidInstanceAttributeValue"
    ebs.call("terminate_instances", InstanceIds=[instance])
    ebs.wait(lambda: ebs.described("volume", volume)["State"] == "available")


def test_an_instance_has_no_more_volumes_than_its_type_allows(ebs: EbsAccount) -> None:
    devices = [f"/dev/sd{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"] + ["/dev/xvdaa", "/dev/xvdab"]
    full = ebs.launch(
        InstanceType="inf2.8xlarge", BlockDeviceMappings=[maps(one, VolumeSize=1) for one in devices[:25]]
    )
    volume = ebs.volume(Size=1)
    code, _ = ebs.refused("attach_volume", VolumeId=volume, InstanceId=full, Device="/dev/xvdab")
    assert code == "AttachmentLimitExceeded"
    ebs.call("terminate_instances", InstanceIds=[full])


def test_snapshots_of_all_volumes_at_once(ebs: EbsAccount) -> None:
    instance = ebs.launch(BlockDeviceMappings=[maps("/dev/sdf", VolumeSize=4)])
    volumes = {device: volume["VolumeId"] for device, volume in ebs.mapped(instance).items()}
    made = ebs.call("create_snapshots", InstanceSpecification={"InstanceId": instance})["Snapshots"]
    assert {one["VolumeId"] for one in made} == set(volumes.values())
    data = {"InstanceId": instance, "ExcludeBootVolume": True}
    [one] = ebs.call("create_snapshots", InstanceSpecification=data)["Snapshots"]
    assert one["VolumeId"] == volumes["/dev/sdf"]
    for snapshot in [*made, one]:
        ebs.completed(snapshot["SnapshotId"])


def test_machines_live_in_one_region_and_volumes_in_all(ebs: EbsAccount) -> None:
    image = ebs.available(copied(ebs, ELSEWHERE), ELSEWHERE)["ImageId"]
    code, message = ebs.refused(
        "run_instances", ELSEWHERE, ImageId=image, MinCount=1, MaxCount=1, InstanceType="g5.xlarge"
    )
    assert (code, "machines live in eu-north-1" in message) == ("UnsupportedOperation", True)
    made = ebs.call("create_volume", ELSEWHERE, AvailabilityZone=f"{ELSEWHERE}a", Size=1)["VolumeId"]
    ebs.wait(lambda: ebs.described("volume", made, ELSEWHERE)["State"] == "available")


def test_volumes_end_with_the_cloud(tmp_path: Path) -> None:
    with ebs_account(tmp_path) as account:
        volume = account.volume(Size=1)
        account.instances.terminate_all()
        assert not account.file(volume).exists()
