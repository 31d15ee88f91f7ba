"""Launch templates: every field of them reaches the instance, and a call's own go before them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from bake.localcloud.lifecycle import fixtures
from tests.localcloud.recorded_cloud import BASE, OTHER

from .conftest import Account, new, refusal

pytestmark = pytest.mark.integration


def data_of(account: Account) -> dict[str, Any]:
    return {
        "ImageId": BASE,
        "InstanceType": "g6e.2xlarge",
        "IamInstanceProfile": {"Name": fixtures.PROFILE},
        "UserData": base64.b64encode(b"#!/bin/sh\n").decode(),
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 3},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 90, "VolumeType": "gp3", "Throughput": 500}}
        ],
        "NetworkInterfaces": [
            {"DeviceIndex": 0, "SubnetId": account.subnet, "Groups": [account.group], "Description": "a card"}
        ],
        "TagSpecifications": [
            {
                "ResourceType": kind,
                "Tags": [{"Key": "from", "Value": "template"}, {"Key": "kept", "Value": "1"}],
            }
            for kind in ("instance", "volume")
        ],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "DisableApiTermination": False,
        "InstanceMarketOptions": {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        },
    }


@pytest.fixture
def template(served: Account) -> str:
    name = new("template")
    made = served.client("ec2").create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData=data_of(served),
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": [{"Key": "own", "Value": "tag"}]}],
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def by_template(account: Account, template: str, version: str = "", **changes: Any) -> Any:
    named = {"LaunchTemplateId": template, **({"Version": version} if version else {})}
    [instance] = account.client("ec2").run_instances(MinCount=1, MaxCount=1, LaunchTemplate=named, **changes)[
        "Instances"
    ]
    return account.instance(account.reach(instance["InstanceId"], "running"))


def tags_of(found: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in found["Tags"]}


def test_a_template_alone_is_launched_with_all_its_fields(account: Account, template: str) -> None:
    found = by_template(account, template)
    assert (found["ImageId"], found["InstanceType"]) == (BASE, "g6e.2xlarge")
    assert found["IamInstanceProfile"]["Arn"].endswith(f"/{fixtures.PROFILE}")
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 3
    volume = account.volume(found["InstanceId"])
    assert (volume["Size"], volume["VolumeType"], volume["Throughput"]) == (90, "gp3", 500)
    assert tags_of(volume) == {"from": "template", "kept": "1"}
    assert found["SubnetId"] == account.subnet
    assert [group["GroupId"] for group in found["SecurityGroups"]] == [account.group]
    assert found["NetworkInterfaces"][0]["Description"] == "a card"
    assert found["InstanceLifecycle"] == "spot"
    assert found["SpotInstanceRequestId"]
    assert tags_of(found) == {
        "from": "template",
        "kept": "1",
        "aws:ec2launchtemplate:id": template,
        "aws:ec2launchtemplate:version": "1",
    }
    ec2 = account.client("ec2")
    for name, value in (("userData", "IyEvYmluL3NoCg=="), ("instanceInitiatedShutdownBehavior", "terminate")):
        answer = ec2.describe_instance_attribute(InstanceId=found["InstanceId"], Attribute=name)
        assert answer[name[0].upper() + name[1:]]["Value"] == value


def test_what_the_call_says_goes_before_the_template_and_drops_nothing(
    account: Account, template: str
) -> None:
    found = by_template(
        account,
        template,
        ImageId=OTHER,
        InstanceType="g6e.xlarge",
        MetadataOptions={"HttpPutResponseHopLimit": 1},
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"Iops": 4000}}],
        NetworkInterfaces=[{"DeviceIndex": 0, "Description": "another"}],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "from", "Value": "call"}]}],
    )
    assert (found["ImageId"], found["InstanceType"]) == (OTHER, "g6e.xlarge")
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    volume = account.volume(found["InstanceId"])
    assert (volume["Size"], volume["Iops"], volume["Throughput"]) == (90, 4000, 500)
    assert found["IamInstanceProfile"]["Arn"].endswith(f"/{fixtures.PROFILE}")
    [card] = found["NetworkInterfaces"]
    assert (card["Description"], card["SubnetId"]) == ("another", account.subnet)
    assert [group["GroupId"] for group in card["Groups"]] == [account.group]
    assert {"from": "call", "kept": "1"}.items() <= tags_of(found).items()


def test_versions_are_found_by_number_latest_and_default(account: Account, template: str) -> None:
    ec2 = account.client("ec2")
    made = ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"InstanceType": "g6e.4xlarge"}
    )["LaunchTemplateVersion"]
    assert made["VersionNumber"] == 2
    assert made["LaunchTemplateData"]["ImageId"] == BASE  # of its source
    assert by_template(account, template)["InstanceType"] == "g6e.2xlarge"
    assert by_template(account, template, "$Latest")["InstanceType"] == "g6e.4xlarge"
    assert by_template(account, template, "2")["InstanceType"] == "g6e.4xlarge"
    ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")
    found = by_template(account, template, "$Default")
    assert found["InstanceType"] == "g6e.4xlarge"
    assert tags_of(found)["aws:ec2launchtemplate:version"] == "2"


def test_the_tags_of_a_template_are_its_own(served: Account, template: str) -> None:
    ec2 = served.client("ec2")
    [found] = ec2.describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"]
    assert tags_of(found) == {"own": "tag"}
    [version] = ec2.describe_launch_template_versions(LaunchTemplateId=template)["LaunchTemplateVersions"]
    kinds = [one["ResourceType"] for one in version["LaunchTemplateData"]["TagSpecifications"]]
    assert kinds == ["instance", "volume"]


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ({"LaunchTemplateId": "lt-00000000000000000"}, "InvalidLaunchTemplateId.NotFound"),
        ({"LaunchTemplateId": "template"}, "InvalidLaunchTemplateId.Malformed"),
        ({"LaunchTemplateName": "nothing"}, "InvalidLaunchTemplateName.NotFoundException"),
        ({}, "MissingParameter"),
        (
            {"LaunchTemplateName": "a", "LaunchTemplateId": "lt-00000000000000000"},
            "InvalidParameterCombination",
        ),
    ],
)
def test_a_template_that_is_not_there_is_refused(served: Account, named: dict[str, str], code: str) -> None:
    given = {**named, "Version": "1"}
    assert refusal(served.launch, LaunchTemplate=given) == (code, 400)


def test_a_version_that_is_not_there_is_refused(served: Account, template: str) -> None:
    for version in ("9", "new", "0"):
        named = {"LaunchTemplateId": template, "Version": version}
        code = refusal(served.client("ec2").run_instances, MinCount=1, MaxCount=1, LaunchTemplate=named)
        assert code == ("InvalidLaunchTemplateId.VersionNotFound", 400)


def test_a_template_without_an_image_can_not_be_launched_alone(served: Account) -> None:
    made = served.client("ec2").create_launch_template(
        LaunchTemplateName=new(), LaunchTemplateData={"InstanceType": "g6e.xlarge"}
    )
    named = {"LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"]}
    code = refusal(served.client("ec2").run_instances, MinCount=1, MaxCount=1, LaunchTemplate=named)
    assert code == ("MissingParameter", 400)
