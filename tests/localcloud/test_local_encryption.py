"""EBS's encryption: by default, of copies, and what it forbids; no machines are started."""

from __future__ import annotations

import pytest

from bake.localcloud.settings import SPOT_REGION

from .ebs_account import ELSEWHERE, EbsAccount, copied, snapshot_of

pytestmark = pytest.mark.integration


def test_an_encrypted_copy_has_the_key_that_it_names(ebs: EbsAccount) -> None:
    key = ebs.key()
    image = ebs.available(copied(ebs, Encrypted=True, KmsKeyId=key))
    snapshot = ebs.described("snapshot", snapshot_of(image))
    assert image["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"]) == (True, key)
    volume = ebs.mapped(ebs.launch(image["ImageId"]))["/dev/sda1"]
    assert (volume["Encrypted"], volume["KmsKeyId"]) == (True, key)
    again = ebs.call("copy_snapshot", SourceSnapshotId=snapshot["SnapshotId"], SourceRegion=SPOT_REGION)
    ebs.completed(again["SnapshotId"])
    assert ebs.described("snapshot", again["SnapshotId"])["KmsKeyId"] == key


@pytest.mark.parametrize("why", ["unknown", "disabled", "elsewhere"])
def test_with_a_key_that_can_not_be_used_it_fails_after_the_answer(ebs: EbsAccount, why: str) -> None:
    key = ebs.key(ELSEWHERE if why == "elsewhere" else SPOT_REGION)
    if why == "unknown":
        key = "arn:aws:kms:eu-north-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    if why == "disabled":
        ebs.of("kms").disable_key(KeyId=key.rpartition("/")[2])
    image = copied(ebs, Encrypted=True, KmsKeyId=key, Name=f"fails {why}")
    ebs.wait(lambda: ebs.described("image", image)["State"] == "failed")
    assert "key ID is not accessible" in ebs.described("image", image)["StateReason"]["Message"]
    asked = {"SourceSnapshotId": "snap-00000000000000001", "SourceRegion": SPOT_REGION, "Encrypted": True}
    snapshot = ebs.call("copy_snapshot", KmsKeyId=key, **asked)["SnapshotId"]
    ebs.wait(lambda: ebs.described("snapshot", snapshot)["State"] == "error")
    assert ebs.described("snapshot", snapshot)["StateMessage"] == "Given key ID is not accessible"
    zone = f"{SPOT_REGION}b"
    volume = ebs.call("create_volume", AvailabilityZone=zone, Size=1, Encrypted=True, KmsKeyId=key)
    ebs.wait(lambda: ebs.described("volume", volume["VolumeId"])["State"] == "error")
    code, _ = ebs.refused("run_instances", ImageId=image, MinCount=1, MaxCount=1, InstanceType="g6e.xlarge")
    assert code == "InvalidAMIID.Unavailable"
    ebs.call("delete_volume", VolumeId=volume["VolumeId"])


def test_encryption_by_default_holds_for_all_that_is_made_then(ebs: EbsAccount) -> None:
    assert ebs.call("get_ebs_encryption_by_default")["EbsEncryptionByDefault"] is False
    assert ebs.call("enable_ebs_encryption_by_default")["EbsEncryptionByDefault"] is True
    assert ebs.call("get_ebs_encryption_by_default")["EbsEncryptionByDefault"] is True
    default = ebs.call("get_ebs_default_kms_key_id")["KmsKeyId"]
    volume = ebs.volume(Size=1)
    launched = ebs.launch()
    for found in (ebs.described("volume", volume), ebs.mapped(launched)["/dev/sda1"]):
        assert (found["Encrypted"], found["KmsKeyId"]) == (True, default)
    assert ebs.described("snapshot", ebs.snapshot(volume))["Encrypted"] is True
    made = ebs.call("create_image", InstanceId=launched, Name="encrypted by default")["ImageId"]
    assert ebs.available(made)["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    copy = ebs.available(copied(ebs))
    assert ebs.described("snapshot", snapshot_of(copy))["KmsKeyId"] == default
    key = ebs.key()
    assert ebs.call("modify_ebs_default_kms_key_id", KmsKeyId=key)["KmsKeyId"] == key
    assert ebs.described("volume", ebs.volume(Size=1))["KmsKeyId"] == key
    assert ebs.call("reset_ebs_default_kms_key_id")["KmsKeyId"] == default
    code, _ = ebs.refused("modify_ebs_default_kms_key_id", KmsKeyId="alias/none")
    assert code == "InvalidParameterValue"


def test_what_the_default_key_encrypts_can_not_be_shared(ebs: EbsAccount) -> None:
    """As ModifySnapshotAttribute's documentation says, with the words that EC2 has for each call."""
    image = ebs.available(copied(ebs, Encrypted=True))
    share = {"Add": [{"UserId": "210987654321"}]}
    code, message = ebs.refused(
        "modify_snapshot_attribute",
        SnapshotId=snapshot_of(image),
        Attribute="createVolumePermission",
        CreateVolumePermission=share,
    )
    assert (code, message) == (
        "OperationNotPermitted",
        "Encrypted snapshots with EBS default key cannot be shared",
    )
    code, message = ebs.refused("modify_image_attribute", ImageId=image["ImageId"], LaunchPermission=share)
    assert (code, "AWS Managed CMK can't be shared" in message) == ("InvalidParameter", True)
    assert ebs.described("image", image["ImageId"])["Public"] is False


def test_what_an_own_key_encrypts_can_be_shared_but_not_with_all(ebs: EbsAccount) -> None:
    image = ebs.available(copied(ebs, Encrypted=True, KmsKeyId=ebs.key()))
    which = {"SnapshotId": snapshot_of(image), "Attribute": "createVolumePermission"}
    ebs.call("modify_snapshot_attribute", **which, OperationType="add", UserIds=["210987654321"])
    told = ebs.call("describe_snapshot_attribute", **which)["CreateVolumePermissions"]
    assert told == [{"UserId": "210987654321"}]
    everybody = {"OperationType": "add", "GroupNames": ["all"]}
    assert ebs.refused("modify_snapshot_attribute", **which, **everybody)[0] == "InvalidParameterValue"
    ebs.call("reset_snapshot_attribute", **which)
    assert ebs.call("describe_snapshot_attribute", **which)["CreateVolumePermissions"] == []
