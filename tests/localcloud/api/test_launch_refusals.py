"""Launches that EC2 refuses, with its codes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.localcloud.recorded_cloud import BASE

from .conftest import Account, new, refusal, wait
from .signed import ask

pytestmark = pytest.mark.integration


def root(**ebs: Any) -> dict[str, Any]:
    return {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": ebs}]}


def tags(kind: str, *keys: str) -> dict[str, Any]:
    return {
        "TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": key, "Value": "v"} for key in keys]}]
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"ImageId": None}, "MissingParameter"),
    "an unknown image": ({"ImageId": "ami-0000000000000000a"}, "InvalidAMIID.NotFound"),
    "a malformed image": ({"ImageId": "ubuntu"}, "InvalidAMIID.Malformed"),
    "an unknown type": ({"InstanceType": "g99.huge"}, "InvalidParameterValue"),
    "another architecture": ({"InstanceType": "m7g.large"}, "InvalidParameterValue"),
    "a type that the zone has not": ({"InstanceType": "u-3tb1.56xlarge"}, "Unsupported"),
    "a zone that is not the subnet's": (
        {"Placement": {"AvailabilityZone": "eu-north-1a"}},
        "InvalidParameterValue",
    ),
    "a zone of another region": ({"Placement": {"AvailabilityZone": "us-east-1a"}}, "InvalidParameterValue"),
    "none": ({"MinCount": 0, "MaxCount": 0}, "InvalidParameterValue"),
    "fewer at most than at least": ({"MinCount": 2, "MaxCount": 1}, "InvalidParameterValue"),
    "no count": ({"MinCount": None, "MaxCount": None}, "MissingParameter"),
    "more than the subnet holds": ({"MinCount": 300, "MaxCount": 300}, "InsufficientFreeAddressesInSubnet"),
    "an unknown key pair": ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
    "an unknown profile": ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
    "an unknown profile by ARN": (
        {"IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/nobody"}},
        "InvalidParameterValue",
    ),
    "a profile named twice": (
        {"IamInstanceProfile": {"Name": "a", "Arn": "b"}},
        "InvalidParameterCombination",
    ),
    "an unknown group": ({"SecurityGroupIds": ["sg-0000000000000000a"]}, "InvalidGroup.NotFound"),
    "a malformed group": ({"SecurityGroupIds": ["ssh"]}, "InvalidGroupId.Malformed"),
    "a group's name beside a subnet": (
        {"SecurityGroupIds": None, "SecurityGroups": ["flux-rehearsal"]},
        "InvalidParameterCombination",
    ),
    "an unknown subnet": ({"SubnetId": "subnet-0000000000000000a"}, "InvalidSubnetID.NotFound"),
    "no address": ({"PrivateIpAddress": "ten"}, "InvalidParameterValue"),
    "an address elsewhere": ({"PrivateIpAddress": "10.1.1.1"}, "InvalidParameterValue"),
    "a reserved address": ({"PrivateIpAddress": "10.99.0.3"}, "InvalidParameterValue"),
    "a taken address": ({"PrivateIpAddress": "10.99.0.5"}, "InvalidIPAddress.InUse"),
    "one address for two": (
        {"PrivateIpAddress": "10.99.0.77", "MinCount": 2, "MaxCount": 2},
        "InvalidParameterCombination",
    ),
    "a volume type that is none": (root(VolumeType="gp9"), "InvalidParameterValue"),
    "a volume type that does not boot": (root(VolumeType="st1", VolumeSize=200), "InvalidParameterValue"),
    "a volume smaller than its snapshot": (root(VolumeSize=4), "InvalidBlockDeviceMapping"),
    "a volume too large": (root(VolumeSize=65537), "InvalidParameterValue"),
    "a gp2 volume too large": (root(VolumeType="gp2", VolumeSize=16385), "InvalidParameterValue"),
    "gp3 with few IOPS": (root(Iops=2999), "InvalidParameterValue"),
    "gp3 with too many IOPS": (root(Iops=80001, VolumeSize=1000), "InvalidParameterValue"),
    "gp3 with too many IOPS a GiB": (root(Iops=5001, VolumeSize=10), "InvalidParameterCombination"),
    "gp3 with too much throughput": (
        root(Throughput=2001, Iops=80000, VolumeSize=1000),
        "InvalidParameterValue",
    ),
    "gp3 with little throughput": (root(Throughput=124), "InvalidParameterValue"),
    "gp3 with too much throughput an IOPS": (root(Throughput=751), "InvalidParameterCombination"),
    "gp2 with throughput": (root(VolumeType="gp2", Throughput=125), "InvalidParameterCombination"),
    "gp2 with IOPS": (root(VolumeType="gp2", Iops=3000), "InvalidParameterCombination"),
    "io2 without IOPS": (root(VolumeType="io2"), "MissingParameter"),
    "io1 with too many IOPS a GiB": (
        root(VolumeType="io1", Iops=501, VolumeSize=10),
        "InvalidParameterCombination",
    ),
    "io2 with too many IOPS": (root(VolumeType="io2", Iops=256001, VolumeSize=1000), "InvalidParameterValue"),
    "a key without encryption": (root(KmsKeyId="alias/aws/ebs"), "InvalidParameterDependency"),
    "a device twice": (
        {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {}}] * 2},
        "InvalidBlockDeviceMapping",
    ),
    "a mapping without a device": (
        {"BlockDeviceMappings": [{"Ebs": {"VolumeSize": 10}}]},
        "MissingParameter",
    ),
    "too much user data": ({"UserData": "x" * 16385}, "InvalidParameterValue"),
    "tags of what is not launched": (tags("vpc", "a"), "InvalidParameterValue"),
    "a reserved tag": (tags("instance", "aws:mine"), "InvalidParameterValue"),
    "a tag twice": (tags("instance", "a", "a"), "InvalidParameterValue"),
    "too many tags": (tags("instance", *map(str, range(51))), "TagLimitExceeded"),
    "tags of a spot request on demand": (tags("spot-instances-request", "a"), "InvalidParameterValue"),
    "cores that the type has not": (
        {"CpuOptions": {"CoreCount": 99, "ThreadsPerCore": 2}},
        "InvalidParameterValue",
    ),
    "hops beyond 64": ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
    "a count that is no number": ({"MinCount": "one"}, "InvalidParameterValue"),
    "a price that is none": (
        {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"MaxPrice": "cheap"}}},
        "InvalidParameterValue",
    ),
    "cards beside a subnet": (
        {"NetworkInterfaces": [{"DeviceIndex": 0}], "SecurityGroupIds": None},
        "InvalidParameterCombination",
    ),
    "cards beside groups": (
        {"NetworkInterfaces": [{"DeviceIndex": 0}], "SubnetId": None},
        "InvalidParameterCombination",
    ),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("dry", [False, True], ids=["real", "dry"])
def test_a_launch_is_refused(served: Account, changes: dict[str, Any], code: str, dry: bool) -> None:
    before = len(served.client("ec2").describe_instances()["Reservations"])
    assert refusal(served.launch, **changes, DryRun=dry) == (code, 400)
    assert len(served.client("ec2").describe_instances()["Reservations"]) == before


ALLOWED: dict[str, dict[str, Any]] = {
    "gp3 at its most": root(VolumeSize=160, Iops=80000, Throughput=2000),
    "gp3 with 500 IOPS a GiB": root(VolumeSize=10, Iops=5000),
    "gp3 with 0.25 MiB/s an IOPS": root(Throughput=750),
    "io1": root(VolumeType="io1", Iops=400),
    "io2": root(VolumeType="io2", Iops=8000),
    "gp2": root(VolumeType="gp2"),
    "the zone of the subnet": {"Placement": {"AvailabilityZone": "eu-north-1b"}},
    "user data at its most": {"UserData": "x" * 16384},
}


@pytest.mark.parametrize("changes", ALLOWED.values(), ids=ALLOWED)
def test_a_launch_at_a_limit_is_allowed(account: Account, changes: dict[str, Any]) -> None:
    account.launch(**changes)


def test_parameters_that_no_sdk_sends_are_refused(served: Account) -> None:
    call = {"Action": "RunInstances", "ImageId": BASE, "MinCount": "1", "MaxCount": "1", "Colour": "red"}
    call["InstanceType"] = "g6e.xlarge"
    assert ask(served, call)[:2] == (400, "UnknownParameter")
    call.pop("Colour")
    assert ask(served, {**call, "UserData": "#!"})[:2] == (400, "InvalidUserData.Malformed")
    nested = {**call, "BlockDeviceMapping.1.Ebs.Speed": "9"}
    assert ask(served, nested)[:2] == (400, "UnknownParameter")


def test_groups_and_subnet_must_be_of_one_vpc(served: Account) -> None:
    ec2 = served.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName=new(), Description="d", VpcId=vpc)["GroupId"]
    assert refusal(served.launch, SecurityGroupIds=[group]) == ("InvalidParameter", 400)


def test_the_address_of_an_instance_is_in_use_until_it_is_terminated(account: Account) -> None:
    address = "10.99.0.47"
    first = account.one(PrivateIpAddress=address)
    assert refusal(account.launch, PrivateIpAddress=address) == ("InvalidIPAddress.InUse", 400)
    account.client("ec2").terminate_instances(InstanceIds=[first])
    account.reach(first, "terminated")
    account.one(PrivateIpAddress=address)


def test_an_image_that_is_gone_can_not_be_launched(account: Account) -> None:
    ec2 = account.client("ec2")
    image = ec2.create_image(InstanceId=account.one(), Name=new())["ImageId"]
    wait(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available")
    ec2.deregister_image(ImageId=image)
    assert refusal(account.launch, ImageId=image) == ("InvalidAMIID.Unavailable", 400)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        ("none", "Client.InternalError"),
        ("disabled", "Client.InvalidKMSKey.InvalidState"),
        ("enabled", ""),
    ],
)
def test_a_key_that_can_not_be_used_ends_the_instance(account: Account, prepare: str, reason: str) -> None:
    """RunInstances succeeds: EC2 asks KMS afterwards."""
    kms = account.client("kms")
    key = "11111111-2222-3333-4444-555555555555"
    if prepare != "none":
        key = kms.create_key()["KeyMetadata"]["KeyId"]
    if prepare == "disabled":
        kms.disable_key(KeyId=key)
    [instance] = account.launch(**root(Encrypted=True, KmsKeyId=key))["Instances"]
    assert instance["State"]["Name"] == "pending"
    identity = account.reach(instance["InstanceId"], "terminated" if reason else "running")
    assert account.instance(identity)["StateReason"]["Code"] == reason
