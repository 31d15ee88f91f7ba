"""DryRun: everything is refused that the call would refuse, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest

from bake.instance import KeyPair
from tests.localcloud.recorded_cloud import BASE

from .conftest import Account, instances, new, refusal, wait

pytestmark = pytest.mark.integration

WOULD = ("DryRunOperation", 412)
STEADY = {"running", "stopped", "terminated"}


def everything(account: Account) -> Any:
    """What the account has, to be compared: once what other tests have begun has come to its end."""
    ec2 = account.client("ec2")
    wait(lambda: {one["State"]["Name"] for one in instances(ec2)} <= STEADY)
    wait(lambda: {image["State"] for image in ec2.describe_images()["Images"]} <= {"available"})
    return (
        {one["InstanceId"]: (one["State"]["Name"], one.get("Tags")) for one in instances(ec2)},
        {image["ImageId"]: image["State"] for image in ec2.describe_images()["Images"]},
        {snapshot["SnapshotId"] for snapshot in ec2.describe_snapshots()["Snapshots"]},
        {volume["VolumeId"] for volume in ec2.describe_volumes()["Volumes"]},
        {pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]},
        {group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]},
        {one["LaunchTemplateId"] for one in ec2.describe_launch_templates()["LaunchTemplates"]},
        {card["NetworkInterfaceId"] for card in ec2.describe_network_interfaces()["NetworkInterfaces"]},
    )


@pytest.fixture
def stage(account: Account) -> dict[str, Any]:
    """What calls can name: an instance that runs and one that is stopped, an image, a key pair, a group."""
    ec2 = account.client("ec2")
    stopped = account.one()
    ec2.stop_instances(InstanceIds=[stopped])
    account.reach(stopped, "stopped")
    image = ec2.create_image(InstanceId=stopped, Name=new())["ImageId"]
    wait(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available")
    name = new()
    ec2.import_key_pair(KeyName=name, PublicKeyMaterial=KeyPair.generate().public.encode())
    running = account.one()
    return {
        "running": running,
        "stopped": stopped,
        "image": image,
        "key": name,
        "group": ec2.create_security_group(GroupName=name, Description="d")["GroupId"],
        "volume": account.volume(running)["VolumeId"],
        "public": KeyPair.generate().public.encode(),
        "name": new(),
    }


# Operation -> parameters with which it would succeed, and one of them changed so that it is refused.
CALLS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "create_image": (
        {"InstanceId": "<running>", "Name": "<name>"},
        {"Name": "x"},
        "InvalidAMIName.Malformed",
    ),
    "stop_instances": (
        {"InstanceIds": ["<running>"]},
        {"InstanceIds": ["i-00000000000000000"]},
        "InvalidInstanceID.NotFound",
    ),
    "start_instances": (
        {"InstanceIds": ["<stopped>"]},
        {"InstanceIds": ["i"]},
        "InvalidInstanceID.Malformed",
    ),
    "reboot_instances": (
        {"InstanceIds": ["<running>"]},
        {"InstanceIds": ["<stopped>"]},
        "IncorrectInstanceState",
    ),
    "terminate_instances": (
        {"InstanceIds": ["<running>"]},
        {"InstanceIds": ["i-00000000000000000"]},
        "InvalidInstanceID.NotFound",
    ),
    "create_tags": (
        {"Resources": ["<running>"], "Tags": [{"Key": "a", "Value": "b"}]},
        {"Tags": [{"Key": "aws:a", "Value": "b"}]},
        "InvalidParameterValue",
    ),
    "import_key_pair": (
        {"KeyName": "<name>", "PublicKeyMaterial": "<public>"},
        {"KeyName": "<key>"},
        "InvalidKeyPair.Duplicate",
    ),
    "create_key_pair": ({"KeyName": "<name>"}, {"KeyName": "<key>"}, "InvalidKeyPair.Duplicate"),
    "delete_key_pair": ({"KeyName": "<key>"}, {}, ""),
    "create_security_group": (
        {"GroupName": "<name>", "Description": "d"},
        {"GroupName": "<key>"},
        "InvalidGroup.Duplicate",
    ),
    "authorize_security_group_ingress": (
        {"GroupId": "<group>", "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "10.0.0.0/8"},
        {"GroupId": "sg-00000000000000000"},
        "InvalidGroup.NotFound",
    ),
    "delete_security_group": (
        {"GroupId": "<group>"},
        {"GroupId": "sg-00000000000000000"},
        "InvalidGroup.NotFound",
    ),
    "create_snapshot": (
        {"VolumeId": "<volume>"},
        {"VolumeId": "vol-00000000000000000"},
        "InvalidVolume.NotFound",
    ),
    "deregister_image": (
        {"ImageId": "<image>"},
        {"ImageId": "ami-00000000000000000"},
        "InvalidAMIID.NotFound",
    ),
    "modify_instance_attribute": (
        {"InstanceId": "<stopped>", "InstanceType": {"Value": "g6e.2xlarge"}},
        {"InstanceId": "<running>"},
        "IncorrectInstanceState",
    ),
    "modify_image_attribute": (
        {"ImageId": "<image>", "LaunchPermission": {"Add": [{"UserId": "123456789012"}]}},
        {"ImageId": "ami-00000000000000000"},
        "InvalidAMIID.NotFound",
    ),
    "create_launch_template": (
        {"LaunchTemplateName": "<name>", "LaunchTemplateData": {"ImageId": BASE}},
        {"LaunchTemplateData": {"InstanceType": "g99.huge"}},
        "InvalidParameterValue",
    ),
    "create_vpc": ({"CidrBlock": "10.8.0.0/16"}, {"CidrBlock": "ten"}, "InvalidParameterValue"),
    "allocate_address": ({}, {}, ""),
    "describe_instances": ({}, {"Filters": [{"Name": "colour", "Values": ["red"]}]}, "InvalidParameterValue"),
}


def filled(value: Any, stage: dict[str, Any]) -> Any:
    """Parameters with what the stage has for `<name>`."""
    if isinstance(value, dict):
        return {name: filled(inner, stage) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, stage) for inner in value]
    return stage[value[1:-1]] if isinstance(value, str) and value.startswith("<") else value


def test_calls_are_judged_and_not_made(account: Account, stage: dict[str, Any]) -> None:
    ec2, before = account.client("ec2"), everything(account)
    for operation, (good, worse, code) in CALLS.items():
        call = getattr(ec2, operation)
        assert (operation, *refusal(call, **filled(good, stage), DryRun=True)) == (operation, *WOULD)
        if code:
            bad = filled({**good, **worse}, stage)
            assert (operation, *refusal(call, **bad, DryRun=True)) == (operation, code, 400)
            assert (operation, *refusal(call, **bad)) == (operation, code, 400)
    assert everything(account) == before


def test_a_launch_that_would_succeed_starts_nothing(account: Account) -> None:
    before = everything(account)
    assert refusal(account.launch, MaxCount=2, DryRun=True) == WOULD
    assert refusal(account.launch, ClientToken=new(), DryRun=True) == WOULD
    assert everything(account) == before


def test_a_dry_run_does_not_use_up_its_token(account: Account) -> None:
    token = new()
    assert refusal(account.launch, ClientToken=token, DryRun=True) == WOULD
    account.launch(ClientToken=token)


def test_a_dry_run_is_judged_beside_instances_that_have_ended(account: Account) -> None:
    ec2, ended, stopped = account.client("ec2"), account.one(), account.one()
    ec2.terminate_instances(InstanceIds=[ended])
    ec2.stop_instances(InstanceIds=[stopped])
    account.reach(ended, "terminated")
    account.reach(stopped, "stopped")
    group = ec2.create_security_group(GroupName=new(), Description="d")["GroupId"]
    assert refusal(account.launch, DryRun=True) == WOULD
    assert refusal(ec2.delete_security_group, GroupId=group, DryRun=True) == WOULD
    assert refusal(ec2.create_image, InstanceId=stopped, Name=new(), DryRun=True) == WOULD
