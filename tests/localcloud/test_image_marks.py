"""Watermarks and instance types of images, protection with a cooldown, and who sees what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from moto.core import utils
from moto.ec2.models import ec2_backends

from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle.known_images import restore
from bake.localcloud.settings import ACCOUNT, SPOT_REGION

from .ebs_account import BASE, ELSEWHERE, EbsAccount, copied, snapshot_of

pytestmark = pytest.mark.integration

OTHERS = "210987654321"
KEY = f"{ACCOUNT}:flux-good"


@pytest.fixture
def image(ebs: EbsAccount) -> str:
    made = copied(ebs)
    ebs.available(made)
    return made


def keys(ebs: EbsAccount, image: str, region: str = SPOT_REGION) -> list[str]:
    return [one["WatermarkKey"] for one in ebs.described("image", image, region).get("ImageWatermarks", [])]


# --- watermarks --------------------------------------------------------------------------------------


def test_a_watermark_tells_where_it_was_put_on(ebs: EbsAccount, image: str) -> None:
    for _ in range(2):
        made = ebs.call("attach_image_watermark", ImageId=image, WatermarkName="flux-good")
        assert made["WatermarkKey"] == KEY
    [found] = ebs.described("image", image)["ImageWatermarks"]
    assert (found["WatermarkKey"], found["SourceImageId"], found["SourceImageRegion"]) == (
        KEY,
        image,
        SPOT_REGION,
    )
    assert found["SourceImageCreationTime"] <= found["WatermarkCreationTime"]
    filters: Any = [{"Name": "image-watermark.watermark-key", "Values": [f"{ACCOUNT}:flux-*"]}]
    assert [one["ImageId"] for one in ebs.call("describe_images", Filters=filters)["Images"]] == [image]


def test_it_is_inherited_by_copies_and_by_images_of_instances(ebs: EbsAccount, image: str) -> None:
    ebs.call("attach_image_watermark", ImageId=image, WatermarkName="flux-good")
    there = copied(ebs, ELSEWHERE, SourceImageId=image, Name="there")
    ebs.available(there, ELSEWHERE)
    child = ebs.call("create_image", InstanceId=ebs.launch(image), Name="child")["ImageId"]
    ebs.available(child)
    assert keys(ebs, child) == keys(ebs, there, ELSEWHERE) == [KEY]
    [found] = ebs.described("image", there, ELSEWHERE)["ImageWatermarks"]
    assert (found["SourceImageId"], found["SourceImageRegion"]) == (image, SPOT_REGION)
    for _ in range(2):  # what it has not is no error
        ebs.call("detach_image_watermark", ImageId=image, WatermarkKey=KEY)
    assert (keys(ebs, image), keys(ebs, child)) == ([], [KEY])


def test_a_sixth_a_public_image_and_a_bad_name_are_refused(ebs: EbsAccount, image: str) -> None:
    for number in range(5):
        ebs.call("attach_image_watermark", ImageId=image, WatermarkName=f"mark {number}")
    for name, code in (("one more", "ResourceLimitExceeded"), ("a*b", "InvalidParameterValue")):
        assert ebs.refused("attach_image_watermark", ImageId=image, WatermarkName=name)[0] == code
    public: Any = {"LaunchPermission": {"Add": [{"Group": "all"}]}}
    assert ebs.refused("modify_image_attribute", ImageId=image, **public)[0] == "OperationNotPermitted"
    ebs.call("modify_image_attribute", ImageId=BASE, **public)
    try:
        refused = ebs.refused("attach_image_watermark", ImageId=BASE, WatermarkName="flux-good")
        assert refused[0] == "OperationNotPermitted"
    finally:
        ebs.call("reset_image_attribute", ImageId=BASE, Attribute="launchPermission")


# --- instance types ----------------------------------------------------------------------------------


def restricted(ebs: EbsAccount, image: str, **types: list[str]) -> None:
    ebs.call("replace_image_instance_type_specification", ImageId=image, InstanceTypeSpecification=types)


def test_a_launch_on_another_type_is_refused_by_whatever_way(ebs: EbsAccount, image: str) -> None:
    restricted(ebs, image, SupportedInstanceTypes=["g6e.*"], UnsupportedInstanceTypes=["*.2xlarge"])
    found = ebs.described("image", image)["InstanceTypeSpecification"]
    assert found["SupportedInstanceTypes"] == [{"InstanceType": "g6e.*"}]
    data = {"ImageId": image, "InstanceType": "m5.large"}
    made = ebs.call("create_launch_template", LaunchTemplateName=f"of-{image}", LaunchTemplateData=data)
    named = {"LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"]}
    once = {"MinCount": 1, "MaxCount": 1}
    for kind in ("g6e.2xlarge", "m5.large"):
        asked = {"ImageId": image, "InstanceType": kind, **once}
        assert ebs.refused("run_instances", **asked)[0] == "InvalidParameterCombination"
        assert ebs.refused("run_instances", **asked, DryRun=True)[0] == "InvalidParameterCombination"
    assert ebs.refused("run_instances", LaunchTemplate=named, **once)[0] == "InvalidParameterCombination"
    ebs.launch(image, InstanceType="g6e.xlarge")
    ebs.call("replace_image_instance_type_specification", ImageId=image)
    assert "InstanceTypeSpecification" not in ebs.described("image", image)
    ebs.launch(image, InstanceType="g6e.2xlarge")


def test_it_is_the_images_own_and_no_copys(ebs: EbsAccount, image: str) -> None:
    restricted(ebs, image, SupportedInstanceTypes=["g6e.xlarge"])
    there = copied(ebs, ELSEWHERE, SourceImageId=image, Name="there")
    assert "InstanceTypeSpecification" not in ebs.available(there, ELSEWHERE)


@pytest.mark.parametrize(
    "types",
    [
        pytest.param({"SupportedInstanceTypes": ["g6e.**"]}, id="wildcards"),
        pytest.param({"SupportedInstanceTypes": ["g6e xlarge"]}, id="space"),
        pytest.param({"SupportedInstanceTypes": ["x" * 25]}, id="long"),
        pytest.param({"SupportedInstanceTypes": ["g6e.*", "g6e.*"]}, id="twice"),
        pytest.param({"SupportedInstanceTypes": ["a"], "UnsupportedInstanceTypes": ["a"]}, id="both"),
        pytest.param({"SupportedInstanceTypes": [f"a{number}" for number in range(101)]}, id="many"),
    ],
)
def test_types_that_ec2_refuses(ebs: EbsAccount, image: str, types: Any) -> None:
    asked = {"ImageId": image, "InstanceTypeSpecification": types}
    code, _ = ebs.refused("replace_image_instance_type_specification", **asked)
    assert code == "InvalidParameterValue"


# --- protection, and who sees an image ---------------------------------------------------------------


def test_protection_with_a_cooldown_lasts_a_day_longer(ebs: EbsAccount, image: str) -> None:
    ebs.call("enable_image_deregistration_protection", ImageId=image, WithCooldown=True)
    assert ebs.described("image", image)["DeregistrationProtection"] == "enabled-with-cooldown"
    assert ebs.refused("deregister_image", ImageId=image)[0] == "OperationNotPermitted"
    ebs.call("disable_image_deregistration_protection", ImageId=image)
    code, message = ebs.refused("deregister_image", ImageId=image)
    assert (code, "cooldown" in message) == ("OperationNotPermitted", True)
    tomorrow = utils.utcnow() + timedelta(hours=24, minutes=1)
    with mock.patch.object(utils, "utcnow", lambda: tomorrow):
        ebs.call("deregister_image", ImageId=image)


def test_what_is_an_images_own_is_not_copied(ebs: EbsAccount, image: str) -> None:
    ebs.call("enable_image_deregistration_protection", ImageId=image)
    ebs.call("enable_image_deprecation", ImageId=image, DeprecateAt=utils.utcnow() + timedelta(days=3))
    ebs.call("modify_image_attribute", ImageId=image, LaunchPermission={"Add": [{"UserId": OTHERS}]})
    there = copied(ebs, ELSEWHERE, SourceImageId=image, Name="there")
    found = ebs.available(there, ELSEWHERE)
    assert found.get("DeregistrationProtection") == "disabled"
    assert "DeprecationTime" not in found
    told = ebs.call("describe_image_attribute", ELSEWHERE, ImageId=there, Attribute="launchPermission")
    assert told["LaunchPermissions"] == []
    ebs.call("disable_image_deregistration_protection", ImageId=image)


def test_a_copy_is_an_image_of_its_region_in_every_call(ebs: EbsAccount) -> None:
    key = ebs.key(ELSEWHERE)
    asked = {"Name": "encrypted", "Encrypted": True, "KmsKeyId": key, "CopyImageTags": True}
    ebs.call("create_tags", Resources=[BASE], Tags=[{"Key": "bake:plan", "Value": "p"}])
    there = copied(ebs, ELSEWHERE, **asked)
    found = ebs.available(there, ELSEWHERE)
    ebs.call("delete_tags", Resources=[BASE], Tags=[{"Key": "bake:plan"}])
    snapshot = ebs.described("snapshot", snapshot_of(found), ELSEWHERE)
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"]) == (True, key)

    def done(call: str, **parameters: Any) -> None:
        ebs.call(call, ELSEWHERE, ImageId=there, **parameters)

    ebs.call("create_tags", ELSEWHERE, Resources=[there], Tags=[{"Key": "bake:copy-of", "Value": BASE}])
    done("modify_image_attribute", LaunchPermission={"Add": [{"UserId": OTHERS}]})
    done("enable_image_deprecation", DeprecateAt=utils.utcnow() + timedelta(days=3))
    done("enable_image_deregistration_protection")
    done("attach_image_watermark", WatermarkName="flux-good")
    done(
        "replace_image_instance_type_specification",
        InstanceTypeSpecification={"SupportedInstanceTypes": ["g6e.*"]},
    )
    found = ebs.described("image", there, ELSEWHERE)
    assert {one["Key"] for one in found["Tags"]} == {"bake:plan", "bake:copy-of"}
    assert found["DeregistrationProtection"] == "enabled-without-cooldown"
    assert (keys(ebs, there, ELSEWHERE), "DeprecationTime" in found) == ([KEY], True)
    assert ebs.refused("deregister_image", ELSEWHERE, ImageId=there)[0] == "OperationNotPermitted"
    done("disable_image_deregistration_protection")
    done("disable_image")
    done("deregister_image", DeleteAssociatedSnapshots=True)
    assert ebs.refused("describe_images", ELSEWHERE, ImageIds=[there])[0] == "InvalidAMIID.NotFound"


def test_a_disabled_image_is_shared_with_nobody_in_the_next_cloud_either(ebs: EbsAccount, image: str) -> None:
    shared: Any = {"LaunchPermission": {"Add": [{"UserId": OTHERS}]}}
    ebs.call("modify_image_attribute", ImageId=image, **shared)
    ebs.call("disable_image", ImageId=image)
    assert ebs.refused("modify_image_attribute", ImageId=image, **shared)[0] == "InvalidAMIID.Unavailable"
    backend = ec2_backends[ACCOUNT][SPOT_REGION]
    restore(ImageStore(ebs.store.directory), lambda region: ec2_backends[ACCOUNT][region])
    assert (backend.amis[image].state, backend.amis[image].launch_permissions) == ("disabled", [])
    ebs.call("enable_image", ImageId=image)
    told = ebs.call("describe_image_attribute", ImageId=image, Attribute="launchPermission")
    assert told["LaunchPermissions"] == []


def test_anothers_deprecated_image_is_shown_to_who_names_it(ebs: EbsAccount) -> None:
    backend = ec2_backends[ACCOUNT][SPOT_REGION]
    base = backend.amis[BASE]
    with mock.patch.multiple(base, owner_id=OTHERS, deprecation_time="2026-01-01T00:00:00.000Z"):
        assert ebs.call("describe_images", Owners=[OTHERS])["Images"] == []
        for asked in ({"ImageIds": [BASE]}, {"Owners": [OTHERS], "IncludeDeprecated": True}):
            assert [one["ImageId"] for one in ebs.call("describe_images", **asked)["Images"]] == [BASE]


def test_marks_are_there_again_in_the_next_cloud(ebs: EbsAccount, image: str) -> None:
    ebs.call("attach_image_watermark", ImageId=image, WatermarkName="flux-good")
    restricted(ebs, image, SupportedInstanceTypes=["g6e.xlarge"])
    before = ebs.described("image", image)
    del ec2_backends[ACCOUNT][SPOT_REGION].amis[image]
    restore(ImageStore(ebs.store.directory), lambda region: ec2_backends[ACCOUNT][region])
    assert ebs.described("image", image) == before
