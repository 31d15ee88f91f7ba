"""Images and snapshots: copies, registrations, attributes, filters, encryption; no machines are started."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.ec2.models import ec2_backends

from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle.known_images import restore
from bake.localcloud.settings import ACCOUNT, SPOT_REGION

from .ebs_account import BASE, ELSEWHERE, EbsAccount, ebs_account

pytestmark = pytest.mark.integration

UNKNOWN = "ami-0123456789abcdef0"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EbsAccount]:
    with ebs_account(tmp_path_factory.mktemp("ebs")) as account:
        yield account


@pytest.fixture
def account(served: EbsAccount) -> Iterator[EbsAccount]:
    """Without encryption by default, and without images but the base."""
    yield served
    for region in (SPOT_REGION, ELSEWHERE):
        served.call("disable_ebs_encryption_by_default", region)
        served.call("reset_ebs_default_kms_key_id", region)
        for image in served.call("describe_images", region, IncludeDisabled=True)["Images"]:
            if image["ImageId"] != BASE:
                served.call("deregister_image", region, ImageId=image["ImageId"])


def copied(account: EbsAccount, region: str = SPOT_REGION, **changes: Any) -> str:
    """CopyImage of the base."""
    asked = {"Name": "a copy", "SourceImageId": BASE, "SourceRegion": SPOT_REGION, **changes}
    return str(account.call("copy_image", region, **asked)["ImageId"])


def snapshot_of(image: dict[str, Any]) -> str:
    return str(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])


# --- copies -----------------------------------------------------------------------------------------


def test_a_copy_goes_to_another_region_and_back(account: EbsAccount) -> None:
    account.call("create_tags", Resources=[BASE], Tags=[{"Key": "team", "Value": "ours"}])
    there = copied(account, ELSEWHERE, Description="sent", CopyImageTags=True)
    sent = account.available(there, ELSEWHERE)
    assert (sent["SourceImageId"], sent["SourceImageRegion"]) == (BASE, SPOT_REGION)
    assert (sent["Description"], sent["Tags"]) == ("sent", [{"Key": "team", "Value": "ours"}])
    assert account.refused("describe_images", ImageIds=[there])[0] == "InvalidAMIID.NotFound"
    assert account.described("snapshot", snapshot_of(sent), ELSEWHERE)["State"] == "completed"
    back = copied(account, Name="back", SourceImageId=there, SourceRegion=ELSEWHERE)
    found = account.available(back)
    assert "Tags" not in found
    assert account.mapped(account.launch(back))["/dev/sda1"]["SnapshotId"] == snapshot_of(found)
    account.call("delete_tags", Resources=[BASE], Tags=[{"Key": "team"}])
    removed = account.call("deregister_image", ELSEWHERE, ImageId=there, DeleteAssociatedSnapshots=True)
    assert removed["DeleteSnapshotResults"] == [{"SnapshotId": snapshot_of(sent), "ReturnCode": "success"}]


def test_the_same_token_gives_the_same_copy(account: EbsAccount) -> None:
    one = copied(account, ClientToken="t")
    account.available(one)
    assert copied(account, ClientToken="t") == one
    asked = {"Name": "other", "SourceImageId": BASE, "SourceRegion": SPOT_REGION, "ClientToken": "t"}
    assert account.refused("copy_image", **asked)[0] == "IdempotentParameterMismatch"


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
def test_a_copy_that_ec2_refuses(account: EbsAccount, changes: Any, code: str) -> None:
    asked = {"Name": "refused", "SourceImageId": BASE, "SourceRegion": SPOT_REGION, **changes}
    assert account.refused("copy_image", **asked)[0] == code


def test_an_encrypted_copy_has_the_key_that_it_names(account: EbsAccount) -> None:
    key = account.key()
    image = account.available(copied(account, Encrypted=True, KmsKeyId=key))
    snapshot = account.described("snapshot", snapshot_of(image))
    assert image["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"]) == (True, key)
    volume = account.mapped(account.launch(image["ImageId"]))["/dev/sda1"]
    assert (volume["Encrypted"], volume["KmsKeyId"]) == (True, key)
    again = account.call("copy_snapshot", SourceSnapshotId=snapshot["SnapshotId"], SourceRegion=SPOT_REGION)
    account.completed(again["SnapshotId"])
    assert account.described("snapshot", again["SnapshotId"])["KmsKeyId"] == key


@pytest.mark.parametrize("why", ["unknown", "disabled", "elsewhere"])
def test_with_a_key_that_can_not_be_used_it_fails_after_the_answer(account: EbsAccount, why: str) -> None:
    key = account.key(ELSEWHERE if why == "elsewhere" else SPOT_REGION)
    if why == "unknown":
        key = "arn:aws:kms:eu-north-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    if why == "disabled":
        account.of("kms").disable_key(KeyId=key.rpartition("/")[2])
    image = copied(account, Encrypted=True, KmsKeyId=key, Name=f"fails {why}")
    account.wait(lambda: account.described("image", image)["State"] == "failed")
    assert "key ID is not accessible" in account.described("image", image)["StateReason"]["Message"]
    asked = {"SourceSnapshotId": "snap-00000000000000001", "SourceRegion": SPOT_REGION, "Encrypted": True}
    snapshot = account.call("copy_snapshot", KmsKeyId=key, **asked)["SnapshotId"]
    account.wait(lambda: account.described("snapshot", snapshot)["State"] == "error")
    assert account.described("snapshot", snapshot)["StateMessage"] == "Given key ID is not accessible"
    zone = f"{SPOT_REGION}b"
    volume = account.call("create_volume", AvailabilityZone=zone, Size=1, Encrypted=True, KmsKeyId=key)
    account.wait(lambda: account.described("volume", volume["VolumeId"])["State"] == "error")
    code, _ = account.refused(
        "run_instances", ImageId=image, MinCount=1, MaxCount=1, InstanceType="g6e.xlarge"
    )
    assert code == "InvalidAMIID.Unavailable"
    account.call("delete_volume", VolumeId=volume["VolumeId"])


def test_a_copied_snapshot_tells_where_it_is_from(account: EbsAccount) -> None:
    source = "snap-00000000000000001"
    tags: Any = [{"ResourceType": "snapshot", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = {"SourceSnapshotId": source, "SourceRegion": SPOT_REGION, "TagSpecifications": tags}
    made = account.call("copy_snapshot", ELSEWHERE, **asked)["SnapshotId"]
    account.completed(made, ELSEWHERE)
    found = account.described("snapshot", made, ELSEWHERE)
    assert (found["VolumeId"], found["VolumeSize"]) == ("vol-ffffffff", 2)
    assert found["Description"] == f"[Copied {source} from {SPOT_REGION}]"
    assert found["Tags"] == [{"Key": "a", "Value": "b"}]
    for wrong in ("snap-0123456789abcdef0", "nonsense"):
        code, _ = account.refused("copy_snapshot", SourceSnapshotId=wrong, SourceRegion=SPOT_REGION)
        assert code.startswith("InvalidSnapshot"), wrong


# --- registrations ----------------------------------------------------------------------------------


def registered(**changes: Any) -> dict[str, Any]:
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-00000000000000001", "VolumeType": "gp3"}}
    return {"Name": "of a snapshot", "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [root], **changes}


def test_an_image_is_registered_from_a_snapshot_and_launched(account: EbsAccount) -> None:
    more = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3}}
    tags: Any = [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]
    asked = registered(
        Architecture="x86_64", VirtualizationType="hvm", EnaSupport=True, BootMode="uefi", ImdsSupport="v2.0"
    )
    asked["BlockDeviceMappings"].append(more)
    image = account.call("register_image", **asked, TagSpecifications=tags)["ImageId"]
    found = account.described("image", image)
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
    volumes = account.mapped(account.launch(image))
    assert {device: volume["Size"] for device, volume in volumes.items()} == {"/dev/xvda": 2, "/dev/sdf": 3}
    assert (
        account.refused("delete_snapshot", SnapshotId="snap-00000000000000001")[0] == "InvalidSnapshot.InUse"
    )


def test_its_defaults_are_ec2s_own(account: EbsAccount) -> None:
    """An image for i386 and without ENA, which clients forget to say."""
    found = account.described("image", account.call("register_image", **registered())["ImageId"])
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
def test_a_registration_that_ec2_refuses(account: EbsAccount, changes: Any, code: str) -> None:
    assert account.refused("register_image", **registered(**changes))[0] == code


# --- attributes -------------------------------------------------------------------------------------


def test_attributes_are_changed_told_and_reset(account: EbsAccount) -> None:
    image = copied(account)
    account.available(image)
    account.call("modify_image_attribute", ImageId=image, Description={"Value": "what it is"})
    account.call("modify_image_attribute", ImageId=image, Attribute="imdsSupport", Value="v2.0")
    add = {"Add": [{"UserId": "210987654321"}]}
    account.call("modify_image_attribute", ImageId=image, LaunchPermission=add)
    found = account.described("image", image)
    assert (found["Description"], found["ImdsSupport"], found["Public"]) == ("what it is", "v2.0", False)

    def told(attribute: str) -> dict[str, Any]:
        return dict(account.call("describe_image_attribute", ImageId=image, Attribute=attribute))

    assert told("description")["Description"] == {"Value": "what it is"}
    assert told("imdsSupport")["ImdsSupport"] == {"Value": "v2.0"}
    assert told("launchPermission")["LaunchPermissions"] == [{"UserId": "210987654321"}]
    [stored] = [one for one in account.store.images() if one.id == image]
    assert stored.description == "what it is"
    account.call("reset_image_attribute", ImageId=image, Attribute="launchPermission")
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
        pytest.param("describe_image_attribute", {"Attribute": "colour"}, "InvalidRequest", id="attribute"),
        pytest.param("reset_image_attribute", {"Attribute": "colour"}, "InvalidParameterValue", id="reset"),
        pytest.param(
            "describe_image_attribute", {"Attribute": "blockDeviceMapping"}, "AuthFailure", id="bdm"
        ),
    ],
)
def test_attributes_that_ec2_refuses(account: EbsAccount, call: str, parameters: Any, code: str) -> None:
    assert account.refused(call, ImageId=BASE, **parameters)[0] == code


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
def test_an_unknown_image_is_not_found(account: EbsAccount, call: str, more: Any) -> None:
    assert account.refused(call, ImageId=UNKNOWN, **more)[0] == "InvalidAMIID.NotFound"
    assert account.refused(call, ImageId="nonsense", **more)[0] == "InvalidAMIID.Malformed"


def test_a_disabled_image_is_hidden_and_launches_nothing(account: EbsAccount) -> None:
    image = copied(account)
    account.available(image)
    account.call("disable_image", ImageId=image)
    assert image not in [one["ImageId"] for one in account.call("describe_images", Owners=["self"])["Images"]]
    shown = account.call("describe_images", Owners=["self"], IncludeDisabled=True)["Images"]
    assert {one["ImageId"]: one["State"] for one in shown}[image] == "disabled"
    asked = {"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "g6e.xlarge"}
    assert account.refused("run_instances", **asked)[0] == "InvalidAMIID.Unavailable"
    account.call("enable_image", ImageId=image)
    account.launch(image)


def test_deprecation_is_told(account: EbsAccount) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    account.call("enable_image_deprecation", ImageId=BASE, DeprecateAt=at)
    told = account.described("image", BASE)["DeprecationTime"]
    assert abs(datetime.fromisoformat(told) - at) <= timedelta(seconds=30)
    account.call("disable_image_deprecation", ImageId=BASE)
    assert "DeprecationTime" not in account.described("image", BASE)
    past = datetime.now(UTC) - timedelta(days=1)
    code, _ = account.refused("enable_image_deprecation", ImageId=BASE, DeprecateAt=past)
    assert code == "InvalidParameterValue"


def test_a_protected_image_stays(account: EbsAccount) -> None:
    image = copied(account)
    account.available(image)
    account.call("enable_image_deregistration_protection", ImageId=image)
    assert account.refused("deregister_image", ImageId=image)[0] == "OperationNotPermitted"
    account.call("disable_image_deregistration_protection", ImageId=image)


# --- descriptions -----------------------------------------------------------------------------------


def test_an_image_is_described_with_what_clients_read(account: EbsAccount) -> None:
    found = account.described("image", BASE)
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
def test_filters_choose_images(account: EbsAccount, name: str, value: str, there: bool) -> None:
    filters = [{"Name": name, "Values": [value]}]
    found = [one["ImageId"] for one in account.call("describe_images", Filters=filters)["Images"]]
    assert (BASE in found) is there
    named = account.call("describe_images", ImageIds=[BASE], Filters=filters)["Images"]
    assert bool(named) is there


def test_what_describes_no_image(account: EbsAccount) -> None:
    assert account.refused("describe_images", ImageIds=[BASE, UNKNOWN])[0] == "InvalidAMIID.NotFound"
    assert account.refused("describe_images", ImageIds=["i-1"])[0] == "InvalidAMIID.Malformed"
    code, _ = account.refused("describe_images", Filters=[{"Name": "colour", "Values": ["red"]}])
    assert code == "InvalidParameterValue"
    for owners in (["amazon"], ["aws-marketplace"], ["210987654321"]):
        assert account.call("describe_images", Owners=owners)["Images"] == []
    assert account.call("describe_images", ExecutableUsers=["self"])["Images"] == []
    account.call("modify_image_attribute", ImageId=BASE, LaunchPermission={"Add": [{"Group": "all"}]})
    assert [one["Public"] for one in account.call("describe_images", ExecutableUsers=["all"])["Images"]] == [
        True
    ]
    account.call("modify_image_attribute", ImageId=BASE, LaunchPermission={"Remove": [{"Group": "all"}]})


def test_snapshots_are_chosen_by_owner(account: EbsAccount) -> None:
    assert account.call("describe_snapshots", OwnerIds=["210987654321"])["Snapshots"] == []
    mine = account.call("describe_snapshots", OwnerIds=["self"])["Snapshots"]
    assert "snap-00000000000000001" in [one["SnapshotId"] for one in mine]


# --- encryption -------------------------------------------------------------------------------------


def test_encryption_by_default_holds_for_all_that_is_made_then(account: EbsAccount) -> None:
    assert account.call("get_ebs_encryption_by_default")["EbsEncryptionByDefault"] is False
    assert account.call("enable_ebs_encryption_by_default")["EbsEncryptionByDefault"] is True
    assert account.call("get_ebs_encryption_by_default")["EbsEncryptionByDefault"] is True
    default = account.call("get_ebs_default_kms_key_id")["KmsKeyId"]
    volume = account.volume(Size=1)
    launched = account.launch()
    for found in (account.described("volume", volume), account.mapped(launched)["/dev/sda1"]):
        assert (found["Encrypted"], found["KmsKeyId"]) == (True, default)
    assert account.described("snapshot", account.snapshot(volume))["Encrypted"] is True
    made = account.call("create_image", InstanceId=launched, Name="encrypted by default")["ImageId"]
    assert account.available(made)["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    copy = account.available(copied(account))
    assert account.described("snapshot", snapshot_of(copy))["KmsKeyId"] == default
    key = account.key()
    assert account.call("modify_ebs_default_kms_key_id", KmsKeyId=key)["KmsKeyId"] == key
    assert account.described("volume", account.volume(Size=1))["KmsKeyId"] == key
    assert account.call("reset_ebs_default_kms_key_id")["KmsKeyId"] == default
    code, _ = account.refused("modify_ebs_default_kms_key_id", KmsKeyId="alias/none")
    assert code == "InvalidParameterValue"


def test_what_the_default_key_encrypts_can_not_be_shared(account: EbsAccount) -> None:
    """As ModifySnapshotAttribute's documentation says, with the words that EC2 has for each call."""
    image = account.available(copied(account, Encrypted=True))
    share = {"Add": [{"UserId": "210987654321"}]}
    code, message = account.refused(
        "modify_snapshot_attribute",
        SnapshotId=snapshot_of(image),
        Attribute="createVolumePermission",
        CreateVolumePermission=share,
    )
    assert (code, message) == (
        "OperationNotPermitted",
        "Encrypted snapshots with EBS default key cannot be shared",
    )
    code, message = account.refused(
        "modify_image_attribute", ImageId=image["ImageId"], LaunchPermission=share
    )
    assert (code, "AWS Managed CMK can't be shared" in message) == ("InvalidParameter", True)
    assert account.described("image", image["ImageId"])["Public"] is False


def test_what_an_own_key_encrypts_can_be_shared_but_not_with_all(account: EbsAccount) -> None:
    image = account.available(copied(account, Encrypted=True, KmsKeyId=account.key()))
    which = {"SnapshotId": snapshot_of(image), "Attribute": "createVolumePermission"}
    account.call("modify_snapshot_attribute", **which, OperationType="add", UserIds=["210987654321"])
    told = account.call("describe_snapshot_attribute", **which)["CreateVolumePermissions"]
    assert told == [{"UserId": "210987654321"}]
    everybody = {"OperationType": "add", "GroupNames": ["all"]}
    assert account.refused("modify_snapshot_attribute", **which, **everybody)[0] == "InvalidParameterValue"
    account.call("reset_snapshot_attribute", **which)
    assert account.call("describe_snapshot_attribute", **which)["CreateVolumePermissions"] == []


# --- what stays on disk -----------------------------------------------------------------------------


def test_images_of_all_regions_are_there_again_in_the_next_cloud(account: EbsAccount) -> None:
    """Read as the next cloud's start reads them: with attributes, permissions and further volumes."""
    instance = account.launch(BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3}}])
    image = account.call("create_image", InstanceId=instance, Name="kept")["ImageId"]
    account.available(image)
    account.call(
        "modify_image_attribute", ImageId=image, LaunchPermission={"Add": [{"UserId": "210987654321"}]}
    )
    before = account.described("image", image)
    there = copied(account, ELSEWHERE, SourceImageId=image, Name="kept elsewhere")
    sent = account.available(there, ELSEWHERE)
    backends = [ec2_backends[ACCOUNT][region] for region in (SPOT_REGION, ELSEWHERE)]
    for backend in backends:
        backend.amis.clear()
        backend.snapshots.clear()
    restore(ImageStore(account.store.directory), lambda region: ec2_backends[ACCOUNT][region])
    assert account.described("image", image) == before
    assert account.described("image", there, ELSEWHERE) == sent
    permissions = account.call("describe_image_attribute", ImageId=image, Attribute="launchPermission")
    assert permissions["LaunchPermissions"] == [{"UserId": "210987654321"}]
    for snapshot in [one["Ebs"]["SnapshotId"] for one in sent["BlockDeviceMappings"]]:
        assert account.described("snapshot", snapshot, ELSEWHERE)["State"] == "completed"
