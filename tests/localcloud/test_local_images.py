"""Images and snapshots: copies, registrations, attributes, filters; no machines are started."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moto.ec2.models import ec2_backends

from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot
from bake.localcloud.lifecycle.known_images import restore
from bake.localcloud.settings import ACCOUNT, SPOT_REGION

from .ebs_account import BASE, ELSEWHERE, EbsAccount, copied, snapshot_of

pytestmark = pytest.mark.integration

UNKNOWN = "ami-0123456789abcdef0"


# --- copies -----------------------------------------------------------------------------------------


def test_a_copy_goes_to_another_region_and_back(ebs: EbsAccount) -> None:
    ebs.call("create_tags", Resources=[BASE], Tags=[{"Key": "team", "Value": "ours"}])
    there = copied(ebs, ELSEWHERE, Description="sent", CopyImageTags=True)
    sent = ebs.available(there, ELSEWHERE)
    assert (sent["SourceImageId"], sent["SourceImageRegion"]) == (BASE, SPOT_REGION)
    assert (sent["Description"], sent["Tags"]) == ("sent", [{"Key": "team", "Value": "ours"}])
    assert ebs.refused("describe_images", ImageIds=[there])[0] == "InvalidAMIID.NotFound"
    assert ebs.described("snapshot", snapshot_of(sent), ELSEWHERE)["State"] == "completed"
    back = copied(ebs, Name="back", SourceImageId=there, SourceRegion=ELSEWHERE)
    found = ebs.available(back)
    assert "Tags" not in found
    assert ebs.mapped(ebs.launch(back))["/dev/sda1"]["SnapshotId"] == snapshot_of(found)
    ebs.call("delete_tags", Resources=[BASE], Tags=[{"Key": "team"}])
    removed = ebs.call("deregister_image", ELSEWHERE, ImageId=there, DeleteAssociatedSnapshots=True)
    assert removed["DeleteSnapshotResults"] == [{"SnapshotId": snapshot_of(sent), "ReturnCode": "success"}]


def test_the_same_token_gives_the_same_copy(ebs: EbsAccount) -> None:
    one = copied(ebs, ClientToken="t")
    ebs.available(one)
    assert copied(ebs, ClientToken="t") == one
    asked = {"Name": "other", "SourceImageId": BASE, "SourceRegion": SPOT_REGION, "ClientToken": "t"}
    assert ebs.refused("copy_image", **asked)[0] == "IdempotentParameterMismatch"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"SourceImageId": UNKNOWN}, "InvalidAMIID.NotFound", id="unknown"),
        pytest.param({"SourceImageId": "nonsense"}, "InvalidAMIID.Malformed", id="malformed"),
        pytest.param({"SourceRegion": "mars-1"}, "InvalidParameterValue", id="region"),
        pytest.param({"SourceRegion": ELSEWHERE}, "InvalidAMIID.NotFound", id="other-region"),
        pytest.param({"Name": "a*b"}, "InvalidAMIName.Malformed", id="name"),
        pytest.param({"Name": "base"}, "InvalidAMIName.Duplicate", id="duplicate"),
    ],
)
def test_a_copy_that_ec2_refuses(ebs: EbsAccount, changes: Any, code: str) -> None:
    asked = {"Name": "refused", "SourceImageId": BASE, "SourceRegion": SPOT_REGION, **changes}
    assert ebs.refused("copy_image", **asked)[0] == code


def test_a_copied_snapshot_tells_where_it_is_from(ebs: EbsAccount) -> None:
    source = "snap-00000000000000001"
    tags: Any = [{"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = {"SourceSnapshotId": source, "SourceRegion": SPOT_REGION, "TagSpecifications": tags}
    made = ebs.call("copy_snapshot", ELSEWHERE, **asked)["SnapshotId"]
    ebs.completed(made, ELSEWHERE)
    found = ebs.described("snapshot", made, ELSEWHERE)
    assert (found["VolumeId"], found["VolumeSize"]) == ("vol-ffffffff", 2)
    assert found["Description"] == f"[Copied {source} from {SPOT_REGION}]"
    assert found["Tags"] == [{"Key": "a", "Value": "b"}]
    for wrong in ("snap-0123456789abcdef0", "nonsense"):
        code, _ = ebs.refused("copy_snapshot", SourceSnapshotId=wrong, SourceRegion=SPOT_REGION)
        assert code.startswith("InvalidSnapshot"), wrong


# --- registrations ----------------------------------------------------------------------------------


def registered(**changes: Any) -> dict[str, Any]:
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-00000000000000001", "VolumeType": "gp3"}}
    return {"Name": "of a snapshot", "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [root], **changes}


def test_an_image_is_registered_from_a_snapshot_and_launched(ebs: EbsAccount) -> None:
    more = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3}}
    tags: Any = [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = registered(
        Architecture="x86_64", VirtualizationType="hvm", EnaSupport=True, BootMode="uefi", ImdsSupport="v2.0"
    )
    asked["BlockDeviceMappings"].append(more)
    image = ebs.call("register_image", **asked, TagSpecifications=tags)["ImageId"]
    found = ebs.described("image", image)
    assert found["State"] == "available"
    assert (found["Architecture"], found["VirtualizationType"], found["BootMode"]) == (
        "x86_64",
        "hvm",
        "uefi",
    )
    assert (found["ImdsSupport"], found["EnaSupport"], found["Tags"]) == (
        "v2.0",
        True,
        [{"Key": "a", "Value": "b"}],
    )
    volumes = ebs.mapped(ebs.launch(image))
    assert {device: volume["Size"] for device, volume in volumes.items()} == {"/dev/xvda": 2, "/dev/sdf": 3}
    assert ebs.refused("delete_snapshot", SnapshotId="snap-00000000000000001")[0] == "InvalidSnapshot.InUse"


def test_its_defaults_are_ec2s_own(ebs: EbsAccount) -> None:
    """An image for i386 and without ENA, which clients forget to say."""
    found = ebs.described("image", ebs.call("register_image", **registered())["ImageId"])
    assert (found["Architecture"], found["VirtualizationType"], found["EnaSupport"]) == (
        "i386",
        "paravirtual",
        False,
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"Name": "base"}, "InvalidAMIName.Duplicate", id="duplicate"),
        pytest.param({"Name": "a*b"}, "InvalidAMIName.Malformed", id="name"),
        pytest.param({"RootDeviceName": "/dev/sda1"}, "InvalidBlockDeviceMapping", id="no-root"),
        pytest.param({"Architecture": "mips"}, "InvalidParameterValue", id="architecture"),
        pytest.param({"BootMode": "cold"}, "InvalidParameterValue", id="boot-mode"),
        pytest.param({"ImageLocation": "bucket/manifest.xml"}, "UnsupportedOperation", id="s3"),
        pytest.param(
            {
                "BlockDeviceMappings": [
                    {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}
                ]
            },
            "InvalidSnapshot.NotFound",
            id="snapshot",
        ),
    ],
)
def test_a_registration_that_ec2_refuses(ebs: EbsAccount, changes: Any, code: str) -> None:
    assert ebs.refused("register_image", **registered(**changes))[0] == code


# --- attributes -------------------------------------------------------------------------------------


def test_attributes_are_changed_told_and_reset(ebs: EbsAccount) -> None:
    image = copied(ebs)
    ebs.available(image)
    ebs.call("modify_image_attribute", ImageId=image, Description={"Value": "what it is"})
    ebs.call("modify_image_attribute", ImageId=image, Attribute="imdsSupport", Value="v2.0")
    add = {"Add": [{"UserId": "210987654321"}]}
    ebs.call("modify_image_attribute", ImageId=image, LaunchPermission=add)
    found = ebs.described("image", image)
    assert (found["Description"], found["ImdsSupport"], found["Public"]) == ("what it is", "v2.0", False)

    def told(attribute: str) -> dict[str, Any]:
        return dict(ebs.call("describe_image_attribute", ImageId=image, Attribute=attribute))

    assert told("description")["Description"] == {"Value": "what it is"}
    assert told("imdsSupport")["ImdsSupport"] == {"Value": "v2.0"}
    assert told("launchPermission")["LaunchPermissions"] == [{"UserId": "210987654321"}]
    [stored] = [one for one in ebs.store.images() if one.id == image]
    assert stored.description == "what it is"
    ebs.call("reset_image_attribute", ImageId=image, Attribute="launchPermission")
    assert told("launchPermission")["LaunchPermissions"] == []


@pytest.mark.parametrize(
    ("call", "parameters", "code"),
    [
        pytest.param("modify_image_attribute", {}, "InvalidParameterCombination", id="nothing"),
        pytest.param(
            "modify_image_attribute",
            {"LaunchPermission": {"Add": [{"UserId": "1"}]}},
            "InvalidAMIAttributeItemValue",
            id="account",
        ),
        pytest.param(
            "modify_image_attribute",
            {"Description": {"Value": "x" * 256}},
            "InvalidParameterValue",
            id="long",
        ),
        pytest.param("describe_image_attribute", {"Attribute": "x"}, "InvalidParameterValue", id="attribute"),
        pytest.param("reset_image_attribute", {"Attribute": "colour"}, "InvalidParameterValue", id="reset"),
        pytest.param(
            "describe_image_attribute", {"Attribute": "blockDeviceMapping"}, "AuthFailure", id="bdm"
        ),
    ],
)
def test_attributes_that_ec2_refuses(ebs: EbsAccount, call: str, parameters: Any, code: str) -> None:
    assert ebs.refused(call, ImageId=BASE, **parameters)[0] == code


@pytest.mark.parametrize(
    ("call", "more"),
    [
        ("modify_image_attribute", {"Description": {"Value": "x"}}),
        ("describe_image_attribute", {"Attribute": "description"}),
        ("reset_image_attribute", {"Attribute": "launchPermission"}),
        ("deregister_image", {}),
        ("enable_image", {}),
        ("disable_image", {}),
        ("enable_image_deprecation", {"DeprecateAt": "2030-01-01T00:00:00Z"}),
        ("disable_image_deprecation", {}),
    ],
)
def test_an_unknown_image_is_not_found(ebs: EbsAccount, call: str, more: Any) -> None:
    assert ebs.refused(call, ImageId=UNKNOWN, **more)[0] == "InvalidAMIID.NotFound"
    assert ebs.refused(call, ImageId="nonsense", **more)[0] == "InvalidAMIID.Malformed"


def test_a_disabled_image_is_hidden_and_launches_nothing(ebs: EbsAccount) -> None:
    image = copied(ebs)
    ebs.available(image)
    ebs.call("disable_image", ImageId=image)
    assert image not in [one["ImageId"] for one in ebs.call("describe_images", Owners=["self"])["Images"]]
    shown = ebs.call("describe_images", Owners=["self"], IncludeDisabled=True)["Images"]
    assert {one["ImageId"]: one["State"] for one in shown}[image] == "disabled"
    asked = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "g6e.xlarge"}
    assert ebs.refused("run_instances", **asked)[0] == "InvalidAMIID.Unavailable"
    ebs.call("enable_image", ImageId=image)
    ebs.launch(image)


def test_deprecation_is_told(ebs: EbsAccount) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    ebs.call("enable_image_deprecation", ImageId=BASE, DeprecateAt=at)
    told = ebs.described("image", BASE)["DeprecationTime"]
    assert abs(datetime.fromisoformat(told) - at) <= timedelta(seconds=30)
    ebs.call("disable_image_deprecation", ImageId=BASE)
    assert "DeprecationTime" not in ebs.described("image", BASE)
    past = datetime.now(UTC) - timedelta(days=1)
    code, _ = ebs.refused("enable_image_deprecation", ImageId=BASE, DeprecateAt=past)
    assert code == "InvalidParameterValue"


def test_a_protected_image_stays(ebs: EbsAccount) -> None:
    image = copied(ebs)
    ebs.available(image)
    ebs.call("enable_image_deregistration_protection", ImageId=image)
    assert ebs.refused("deregister_image", ImageId=image)[0] == "OperationNotPermitted"
    ebs.call("disable_image_deregistration_protection", ImageId=image)


# --- descriptions -----------------------------------------------------------------------------------


def test_an_image_is_described_with_what_clients_read(ebs: EbsAccount) -> None:
    found = ebs.described("image", BASE)
    told = {
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "BootMode": "uefi-preferred",
        "Public": False,
        "OwnerId": ACCOUNT,
        "ImageLocation": f"{ACCOUNT}/base",
        "Architecture": "x86_64",
        "ImageType": "machine",
        "RootDeviceType": "ebs",
    }
    assert {name: found[name] for name in told} == told


@pytest.mark.parametrize(
    ("name", "value", "there"),
    [
        ("name", "bas*", True),
        ("name", "b?se", True),
        ("name", "bas", False),
        ("state", "available", True),
        ("owner-id", ACCOUNT, True),
        ("owner-alias", "amazon", False),
        ("is-public", "false", True),
        ("architecture", "arm64", False),
        ("root-device-name", "/dev/sda1", True),
        ("block-device-mapping.volume-size", "2", True),
        ("block-device-mapping.volume-size", "3", False),
        ("block-device-mapping.snapshot-id", "snap-00000000000000001", True),
        ("block-device-mapping.encrypted", "false", True),
        ("block-device-mapping.delete-on-termination", "true", True),
        ("block-device-mapping.device-name", "/dev/sd*", True),
        ("tag:none", "x", False),
        ("ena-support", "true", True),
        ("hypervisor", "xen", True),
    ],
)
def test_filters_choose_images(ebs: EbsAccount, name: str, value: str, there: bool) -> None:
    filters = [{"Name": name, "Values": [value]}]
    found = [one["ImageId"] for one in ebs.call("describe_images", Filters=filters)["Images"]]
    assert (BASE in found) is there
    named = ebs.call("describe_images", ImageIds=[BASE], Filters=filters)["Images"]
    assert bool(named) is there


def test_what_describes_no_image(ebs: EbsAccount) -> None:
    assert ebs.refused("describe_images", ImageIds=[BASE, UNKNOWN])[0] == "InvalidAMIID.NotFound"
    assert ebs.refused("describe_images", ImageIds=["i-1"])[0] == "InvalidAMIID.Malformed"
    code, _ = ebs.refused("describe_images", Filters=[{"Name": "colour", "Values": ["red"]}])
    assert code == "InvalidParameterValue"
    for owners in (["amazon"], ["aws-marketplace"], ["210987654321"]):
        assert ebs.call("describe_images", Owners=owners)["Images"] == []
    assert ebs.call("describe_images", ExecutableUsers=["self"])["Images"] == []
    ebs.call("modify_image_attribute", ImageId=BASE, LaunchPermission={"Add": [{"Group": "all"}]})
    assert [one["Public"] for one in ebs.call("describe_images", ExecutableUsers=["all"])["Images"]] == [True]
    ebs.call("modify_image_attribute", ImageId=BASE, LaunchPermission={"Remove": [{"Group": "all"}]})


def test_snapshots_are_chosen_by_owner(ebs: EbsAccount) -> None:
    assert ebs.call("describe_snapshots", OwnerIds=["210987654321"])["Snapshots"] == []
    mine = ebs.call("describe_snapshots", OwnerIds=["self"])["Snapshots"]
    assert "snap-00000000000000001" in [one["SnapshotId"] for one in mine]


# --- what stays on disk -----------------------------------------------------------------------------


def test_images_of_all_regions_are_there_again_in_the_next_cloud(ebs: EbsAccount) -> None:
    """Read as the next cloud's start reads them: with attributes, permissions and further volumes."""
    instance = ebs.launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3}}])
    image = ebs.call("create_image", InstanceId=instance, Name="kept")["ImageId"]
    ebs.available(image)
    ebs.call("modify_image_attribute", ImageId=image, LaunchPermission={"Add": [{"UserId": "210987654321"}]})
    before = ebs.described("image", image)
    there = copied(ebs, ELSEWHERE, SourceImageId=image, Name="kept elsewhere")
    sent = ebs.available(there, ELSEWHERE)
    backends = [ec2_backends[ACCOUNT][region] for region in (SPOT_REGION, ELSEWHERE)]
    base = backends[0].amis[BASE]  # which no cloud keeps on disk
    for backend in backends:
        backend.amis.clear()
        backend.snapshots.clear()
    backends[0].amis[BASE], backends[0].snapshots[base.ebs_snapshot.id] = base, base.ebs_snapshot
    restore(ImageStore(ebs.store.directory), lambda region: ec2_backends[ACCOUNT][region])
    assert ebs.described("image", image) == before
    assert ebs.described("image", there, ELSEWHERE) == sent
    permissions = ebs.call("describe_image_attribute", ImageId=image, Attribute="launchPermission")
    assert permissions["LaunchPermissions"] == [{"UserId": "210987654321"}]
    for snapshot in [one["Ebs"]["SnapshotId"] for one in sent["BlockDeviceMappings"]]:
        assert ebs.described("snapshot", snapshot, ELSEWHERE)["State"] == "completed"


def test_tags_for_what_a_call_does_not_make_leave_nothing_behind(ebs: EbsAccount) -> None:
    instance = ebs.launch()
    before = len(ebs.call("describe_snapshots")["Snapshots"])
    tags: Any = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    for call, asked in (
        ("create_image", {"InstanceId": instance, "Name": "tagged"}),
        ("copy_image", {"SourceImageId": BASE, "SourceRegion": SPOT_REGION, "Name": "tagged"}),
        ("register_image", registered()),
    ):
        assert ebs.refused(call, **asked, TagSpecifications=tags)[0] == "InvalidParameterValue", call
    assert len(ebs.call("describe_snapshots")["Snapshots"]) == before


def test_an_old_record_on_disk_is_read(ebs: EbsAccount) -> None:
    """Of a cloud from before images had further volumes, regions and attributes."""
    record = {
        "id": "ami-0123456789abcdef1", "name": "old", "description": "", "created": "2026-01-01T00:00:00",
        "snapshot_id": "snap-00000000000000001", "volume_type": "gp3", "iops": 3000, "throughput": 125,
        "source_instance": None, "tags": {}, "imds_support": None, "root_device": "/dev/sda1",
        "more_mappings": [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}],
    }  # fmt: skip
    file = ebs.store.directory / "ami-0123456789abcdef1.json"
    file.write_text(json.dumps(record))
    try:
        restore(ImageStore(ebs.store.directory), lambda region: ec2_backends[ACCOUNT][region])
        found = ebs.described("image", "ami-0123456789abcdef1")
        assert [one["DeviceName"] for one in found["BlockDeviceMappings"]] == ["/dev/sda1", "/dev/sdb"]
        assert found["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 2
    finally:
        file.unlink()


def test_pruning_keeps_snapshots_that_newer_images_are_made_of(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    for number in (1, 2):
        for snapshot in (f"snap-{number}", "snap-shared"):
            store.save(StoredSnapshot(snapshot, "vol-1", 1, "", f"2026-01-0{number}T00:00:00"))
            store.disk(snapshot).touch()
        more = [{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-shared"}}]
        made = f"2026-01-0{number}T00:00:00"
        store.save(
            StoredImage(
                f"ami-{number}", "n", "", made, f"snap-{number}", "gp3", 3000, 125, more_mappings=more
            )
        )
    store.prune(lambda text: None, kept=1)
    assert [image.id for image in store.images()] == ["ami-2"]
    assert sorted(one.id for one in store.snapshots()) == ["snap-2", "snap-shared"]
