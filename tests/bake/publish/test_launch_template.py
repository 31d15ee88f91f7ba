"""Numbered versions of launch templates with an AMI's literal id."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import pytest

from bake.aws import Aws, ClientError
from bake.errors import BakeError
from bake.publish import launch_template
from bake.publish.launch_template import Changed
from tests.localcloud.recorded_cloud import BASE, OTHER

from .failing import answer_lost, refused
from .images import good_image

pytestmark = pytest.mark.integration


def template(witness: Aws, **data: Any) -> str:
    made = witness.ec2.create_launch_template(
        LaunchTemplateName=f"workers-{secrets.token_hex(4)}",
        LaunchTemplateData={"ImageId": BASE, "InstanceType": "g6e.xlarge", **data},
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def ami() -> str:
    return f"ami-0{secrets.token_hex(8)}"


def told(witness: Aws, name: str) -> list[Any]:
    return witness.ec2.describe_launch_template_versions(LaunchTemplateId=name)["LaunchTemplateVersions"]


RICH: dict[str, Any] = {
    "UserData": base64.b64encode(b"#!/bin/sh\n").decode(),
    "MetadataOptions": {"HttpTokens": "required"},
    "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 90, "VolumeType": "gp3"}}],
    "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "images"}]}],
}


def test_a_new_version_differs_from_the_default_in_its_ami_alone(aws: Aws, witness: Aws) -> None:
    name, image = template(witness, **RICH), ami()
    made = launch_template.ensure_version(aws, name, image)
    before, after = sorted(told(witness, name), key=lambda one: one["VersionNumber"])
    assert after["LaunchTemplateData"] == {**before["LaunchTemplateData"], "ImageId": image}
    assert (made.number, made.image, made.default) == (2, image, False)
    assert before["DefaultVersion"]


def test_a_second_call_makes_no_second_version(aws: Aws, witness: Aws) -> None:
    name, image = template(witness), ami()
    first = launch_template.ensure_version(aws, name, image)
    assert launch_template.ensure_version(aws, name, image) == first
    assert len(told(witness, name)) == 2


def test_two_that_do_not_see_each_others_make_one(
    aws: Aws, witness: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, image = template(witness), ami()
    monkeypatch.setattr(launch_template, "of_image", lambda known, image: None)
    assert [launch_template.ensure_version(aws, name, image).number for _ in range(2)] == [2, 2]


def test_another_ami_gets_a_version_of_its_own(aws: Aws, witness: Aws) -> None:
    name = template(witness)
    numbers = [launch_template.ensure_version(aws, name, ami()).number for _ in range(3)]
    assert numbers == [2, 3, 4]


def test_a_lost_answer_makes_no_second_version(aws: Aws, witness: Aws) -> None:
    name, image = template(witness), ami()
    with answer_lost(aws.ec2, "CreateLaunchTemplateVersion") as lost:
        made = launch_template.ensure_version(aws, name, image)
    assert lost
    assert sorted(one["VersionNumber"] for one in told(witness, name)) == [1, made.number] == [1, 2]


def test_throttling_is_waited_for(aws: Aws, witness: Aws) -> None:
    name, image = template(witness), ami()
    with refused(aws.ec2, "CreateLaunchTemplateVersion", "RequestLimitExceeded", times=3) as calls:
        assert launch_template.ensure_version(aws, name, image).number == 2
    assert len(calls) == 3


def test_a_version_is_made_of_the_source_that_is_named(aws: Aws, witness: Aws) -> None:
    name = template(witness)
    witness.ec2.create_launch_template_version(
        LaunchTemplateId=name, SourceVersion="1", LaunchTemplateData={"InstanceType": "g6e.4xlarge"}
    )
    made = launch_template.ensure_version(aws, name, ami(), source=2)
    assert made.data["InstanceType"] == "g6e.4xlarge"
    assert launch_template.ensure_version(aws, name, ami()).data["InstanceType"] == "g6e.xlarge"


def test_the_snapshots_of_data_disks_stay(aws: Aws, witness: Aws) -> None:
    """EC2 leaves them out of a new version unless they are named again."""
    snapshot = good_image(witness).image.snapshot
    disks = [{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": snapshot, "VolumeSize": 2}}]
    made = launch_template.ensure_version(aws, template(witness, BlockDeviceMappings=disks), ami())
    assert made.data["BlockDeviceMappings"] == disks


@pytest.mark.parametrize("source", [None, 1], ids=["default", "named"])
def test_a_source_that_goes_by_a_parameter_is_refused(aws: Aws, witness: Aws, source: int | None) -> None:
    name = template(witness, ImageId="resolve:ssm:/flux/ami")
    with pytest.raises(BakeError, match="takes its AMI from resolve:ssm:/flux/ami") as caught:
        launch_template.ensure_version(aws, name, ami(), source=source)
    assert "choose one" in str(caught.value.hint)
    assert len(told(witness, name)) == 1


def test_a_template_that_is_not_there_is_said(aws: Aws) -> None:
    with pytest.raises(BakeError, match=f"no launch template lt-0123456789abcdef0 in {aws.region}"):
        launch_template.ensure_version(aws, "lt-0123456789abcdef0", ami())


def test_a_source_that_is_not_there_is_said_with_those_that_are(aws: Aws, witness: Aws) -> None:
    with pytest.raises(BakeError, match="has no version 7") as caught:
        launch_template.ensure_version(aws, template(witness), ami(), source=7)
    assert caught.value.hint == "its versions are 1"


def test_a_refusal_is_raised_as_it_is(aws: Aws, witness: Aws) -> None:
    name = template(witness)
    with (
        refused(aws.ec2, "CreateLaunchTemplateVersion", "UnauthorizedOperation"),
        pytest.raises(ClientError, match="UnauthorizedOperation"),
    ):
        launch_template.ensure_version(aws, name, ami())
    assert launch_template.ensure_version(aws, name, OTHER).number == 2


def test_the_default_moves_only_where_it_is_what_it_was(aws: Aws, witness: Aws) -> None:
    name = template(witness)
    for _ in range(2):
        launch_template.ensure_version(aws, name, ami())
    launch_template.set_default(aws, name, 2, expected=1)
    assert launch_template.default_version(witness, name).number == 2
    with pytest.raises(Changed, match="is 2, and was 1: somebody else changed it") as caught:
        launch_template.set_default(aws, name, 3, expected=1)
    assert "aws ec2 modify-launch-template" in str(caught.value.hint)
    assert launch_template.default_version(witness, name).number == 2


def test_a_default_that_is_set_already_is_no_change(aws: Aws, witness: Aws) -> None:
    name = template(witness)
    launch_template.ensure_version(aws, name, ami())
    launch_template.set_default(aws, name, 2, expected=1)
    launch_template.set_default(aws, name, 2, expected=1)
    assert launch_template.default_version(witness, name).number == 2
