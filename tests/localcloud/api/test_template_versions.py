"""Versions of launch templates: made, described by number and alias, the default kept, deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bake.localcloud.settings import ACCOUNT
from tests.localcloud.recorded_cloud import BASE, OTHER

from .conftest import Account, new, refusal

pytestmark = pytest.mark.integration

GONE = "ami-0fedcba9876543210"


@pytest.fixture
def ec2(served: Account) -> Any:
    return served.client("ec2")


@pytest.fixture
def template(ec2: Any) -> str:
    """A template with four versions, of which the first is the default."""
    made = ec2.create_launch_template(
        LaunchTemplateName=new("versions"),
        VersionDescription="first",
        LaunchTemplateData={"ImageId": BASE, "InstanceType": "g6e.xlarge"},
    )["LaunchTemplate"]
    identity = str(made["LaunchTemplateId"])
    for kind in ("g6e.2xlarge", "g6e.4xlarge", "g6e.8xlarge"):
        added(ec2, identity, SourceVersion="1", LaunchTemplateData={"InstanceType": kind})
    return identity


def added(ec2: Any, template: str, **asked: Any) -> Any:
    made = ec2.create_launch_template_version(LaunchTemplateId=template, **asked)
    return made["LaunchTemplateVersion"]


def numbers(ec2: Any, **asked: Any) -> list[int]:
    told = ec2.describe_launch_template_versions(**asked)["LaunchTemplateVersions"]
    return [one["VersionNumber"] for one in told]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [4, 3, 2, 1]),
        ({"Versions": ["2", "$Latest"]}, [4, 2]),
        ({"Versions": ["$Default"]}, [1]),
        ({"Versions": ["$Default", "1"]}, [1]),
        ({"MinVersion": "2", "MaxVersion": "3"}, [3, 2]),
        ({"MaxVersion": "2"}, [2, 1]),
        ({"MinVersion": "9"}, []),
        ({"Filters": [{"Name": "instance-type", "Values": ["g6e.4*"]}]}, [3]),
        ({"Filters": [{"Name": "image-id", "Values": [BASE]}]}, [4, 3, 2, 1]),
        ({"Filters": [{"Name": "is-default-version", "Values": ["true"]}]}, [1]),
    ],
)
def test_versions_are_described(ec2: Any, template: str, asked: Any, found: list[int]) -> None:
    assert numbers(ec2, LaunchTemplateId=template, **asked) == found


def test_the_latest_of_all_templates_are_described_without_naming_one(ec2: Any, template: str) -> None:
    told = ec2.describe_launch_template_versions(Versions=["$Latest", "$Default"])["LaunchTemplateVersions"]
    ours = [one["VersionNumber"] for one in told if one["LaunchTemplateId"] == template]
    assert ours == [4, 1]
    assert refusal(ec2.describe_launch_template_versions) == ("MissingParameter", 400)
    assert refusal(ec2.describe_launch_template_versions, Versions=["1"]) == ("InvalidParameterValue", 400)


def test_a_version_tells_who_made_it_and_what_for(ec2: Any, template: str) -> None:
    made = added(ec2, template, VersionDescription="why", LaunchTemplateData={"ImageId": OTHER})
    assert (made["VersionNumber"], made["VersionDescription"], made["DefaultVersion"]) == (5, "why", False)
    assert made["CreatedBy"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert made["LaunchTemplateData"] == {"ImageId": OTHER}  # nothing of a version that is no source
    [found] = ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=["5"])[
        "LaunchTemplateVersions"
    ]
    assert found == made


def test_the_same_token_makes_one_version(ec2: Any, template: str) -> None:
    token = new()
    for _ in range(2):
        made = added(ec2, template, ClientToken=token, LaunchTemplateData={"ImageId": OTHER})
        assert made["VersionNumber"] == 5


def test_the_default_stays_whatever_is_deleted_and_no_number_comes_again(ec2: Any, template: str) -> None:
    ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")
    told = ec2.delete_launch_template_versions(LaunchTemplateId=template, Versions=["1", "2", "4", "9"])
    gone = told["SuccessfullyDeletedLaunchTemplateVersions"]
    assert [one["VersionNumber"] for one in gone] == [1, 4]
    kept = told["UnsuccessfullyDeletedLaunchTemplateVersions"]
    assert [(one["VersionNumber"], one["ResponseError"]["Code"]) for one in kept] == [
        (2, "unexpectedError"),
        (9, "launchTemplateVersionDoesNotExist"),
    ]
    assert numbers(ec2, LaunchTemplateId=template) == [3, 2]
    assert numbers(ec2, LaunchTemplateId=template, Versions=["$Latest"]) == [3]
    assert added(ec2, template, LaunchTemplateData={"ImageId": OTHER})["VersionNumber"] == 5
    [found] = ec2.describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"]
    assert (found["DefaultVersionNumber"], found["LatestVersionNumber"]) == (2, 5)
    for version in ("1", "4"):
        said = refusal(ec2.modify_launch_template, LaunchTemplateId=template, DefaultVersion=version)
        assert said == ("InvalidLaunchTemplateId.VersionNotFound", 400)


def test_a_template_that_points_at_an_image_that_is_gone_launches_nothing(
    served: Account, ec2: Any, template: str
) -> None:
    image = ec2.copy_image(Name=new("gone"), SourceImageId=BASE, SourceRegion="eu-north-1")["ImageId"]
    version = added(ec2, template, SourceVersion="1", LaunchTemplateData={"ImageId": image})
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 1})
    ec2.deregister_image(ImageId=image)  # whoever points at it
    named = {"LaunchTemplateId": template, "Version": str(version["VersionNumber"])}
    assert refusal(served.launch, ImageId=None, LaunchTemplate=named) == ("InvalidAMIID.Unavailable", 400)
    never = added(ec2, template, SourceVersion="1", LaunchTemplateData={"ImageId": GONE})
    named["Version"] = str(never["VersionNumber"])
    assert refusal(served.launch, ImageId=None, LaunchTemplate=named) == ("InvalidAMIID.NotFound", 400)


def test_an_alias_is_told_as_it_is_or_as_the_ami_that_it_means(served: Account, ec2: Any) -> None:
    ssm, name = served.client("ssm"), f"/{new('golden')}"
    ssm.put_parameter(Name=name, Value=BASE, Type="String", DataType="aws:ec2:image")
    data = {"ImageId": f"resolve:ssm:{name}"}
    made = ec2.create_launch_template(LaunchTemplateName=new(), LaunchTemplateData=data)["LaunchTemplate"]
    asked = {"LaunchTemplateId": made["LaunchTemplateId"], "Versions": ["1"]}
    for resolve, image in ((False, data["ImageId"]), (True, BASE)):
        [found] = ec2.describe_launch_template_versions(ResolveAlias=resolve, **asked)[
            "LaunchTemplateVersions"
        ]
        assert found["LaunchTemplateData"]["ImageId"] == image


@pytest.mark.parametrize(
    ("call", "asked", "code"),
    [
        ("describe_launch_template_versions", {"Versions": ["9"]}, "InvalidLaunchTemplateId.VersionNotFound"),
        ("describe_launch_template_versions", {"MinVersion": "one"}, "InvalidParameterValue"),
        (
            "describe_launch_template_versions",
            {"Versions": ["1"], "MinVersion": "1"},
            "InvalidParameterCombination",
        ),
        (
            "describe_launch_template_versions",
            {"Filters": [{"Name": "colour", "Values": ["red"]}]},
            "InvalidParameterValue",
        ),
        ("delete_launch_template_versions", {"Versions": ["$Latest"]}, "InvalidParameterValue"),
        (
            "delete_launch_template_versions",
            {"Versions": [str(n) for n in range(201)]},
            "InvalidParameterValue",
        ),
        (
            "create_launch_template_version",
            {"LaunchTemplateData": {"ImageId": BASE}, "SourceVersion": "9"},
            "InvalidLaunchTemplateId.VersionNotFound",
        ),
        ("modify_launch_template", {"DefaultVersion": "$Latest"}, "InvalidLaunchTemplateId.VersionNotFound"),
    ],
)
def test_what_ec2_refuses(ec2: Any, template: str, call: str, asked: Any, code: str) -> None:
    assert refusal(getattr(ec2, call), LaunchTemplateId=template, **asked) == (code, 400)


def test_a_name_is_well_formed_and_the_only_one(ec2: Any, template: str) -> None:
    [found] = ec2.describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"]
    for name, code in (
        ("a b", "InvalidLaunchTemplateName.MalformedException"),
        ("ab", "InvalidLaunchTemplateName.MalformedException"),
        (found["LaunchTemplateName"], "InvalidLaunchTemplateName.AlreadyExistsException"),
    ):
        asked = {"LaunchTemplateName": name, "LaunchTemplateData": {"ImageId": BASE}}
        assert refusal(ec2.create_launch_template, **asked) == (code, 400)


def test_tags_of_a_template_can_be_changed(ec2: Any, template: str) -> None:
    ec2.create_tags(Resources=[template], Tags=[{"Key": "bake:channel", "Value": "stable"}])
    [found] = ec2.describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"]
    assert found["Tags"] == [{"Key": "bake:channel", "Value": "stable"}]
    assert found["CreateTime"] - datetime.now(UTC) < timedelta(minutes=5)
