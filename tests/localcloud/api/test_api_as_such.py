"""EC2's API as such: GET and POST, the XML's namespace, and a 4xx for every mistake of a user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from moto.core.utils import camelcase_to_underscores, get_service_model, method_names_from_class

from bake.localcloud.api.parameters import _wire_name
from bake.localcloud.settings import SPOT_REGION

from .conftest import Account, new, refusal, wait
from .signed import ask

pytestmark = pytest.mark.integration

NAMESPACE = 'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"'
UNKNOWN = "-0123456789abcdef9"
# The prefix of an id by the end of its parameter's name.
PREFIXES = {
    "InstanceId": "i", "ImageId": "ami", "SnapshotId": "snap", "VolumeId": "vol", "GroupId": "sg",
    "SubnetId": "subnet", "VpcId": "vpc", "InterfaceId": "eni", "AllocationId": "eipalloc",
    "AssociationId": "eipassoc", "RouteTableId": "rtb", "NatGatewayId": "nat", "InternetGatewayId": "igw",
    "LaunchTemplateId": "lt", "VpnGatewayId": "vgw", "KeyPairId": "key", "NetworkAclId": "acl",
    "InstanceRequestId": "sir", "TransitGatewayId": "tgw", "AttachmentId": "tgw-attach",
}  # fmt: skip
PLAIN = {"integer": "10", "long": "10", "double": "1.5", "float": "1.5", "boolean": "true"}
PLAIN |= {"timestamp": "2030-01-01T00:00:00Z", "blob": "Zm9v"}
DEPTH = 5


def supported() -> list[str]:
    from moto.ec2.responses import EC2Response

    names = method_names_from_class(EC2Response)
    model = get_service_model("ec2")
    return [name for name in model.operation_names if camelcase_to_underscores(name) in names]


def leaf(shape: Any, name: str, mode: str) -> str:
    if mode in {"", "foo"}:
        return mode
    if getattr(shape, "enum", None):
        return str(shape.enum[0])
    prefix = next((PREFIXES[end] for end in PREFIXES if name.removesuffix("s").endswith(end)), None)
    if "Cidr" in name and not prefix:
        return "10.1.0.0/16"
    return f"{prefix}{UNKNOWN}" if prefix else PLAIN.get(shape.type_name, "foo")


def pairs(
    shape: Any, path: str, name: str, mode: str, wanted: bool, depth: int = 0
) -> Iterator[tuple[str, str]]:
    """Parameters of a shape: of well-formed unknown ids and fitting values, of "foo", or empty."""
    if depth > DEPTH:
        return
    if shape.type_name == "structure":
        for member, inner in shape.members.items():
            if member not in {"DryRun", "NextToken"} and not (
                wanted and member not in shape.required_members
            ):
                at = f"{path}.{_wire_name(member, inner)}".removeprefix(".")
                yield from pairs(inner, at, member, mode, wanted, depth + 1)
    elif shape.type_name == "list":
        yield from pairs(shape.member, f"{path}.1", name, mode, wanted, depth + 1)
    else:
        yield path, leaf(shape, name, mode)


def mistakes() -> Iterator[dict[str, str]]:
    for operation in supported():
        shape = get_service_model("ec2").operation_model(operation).input_shape
        yield {"Action": operation}
        for mode in ("fitting", "foo", "") if shape is not None else ():
            for wanted in (True, False):
                yield {"Action": operation, **dict(pairs(shape, "", "", mode, wanted))}
            for member, inner in shape.members.items():
                if member not in {"DryRun", "NextToken"}:
                    yield {
                        "Action": operation,
                        **dict(pairs(shape, "", "", "fitting", True)),
                        **dict(pairs(inner, _wire_name(member, inner), member, mode, False)),
                    }


def test_no_mistake_of_a_user_is_an_internal_error(served: Account) -> None:
    """Every operation, with nothing, unknown ids, malformed ids, empty and wrong-typed values."""
    calls = list(mistakes())
    assert len(calls) > 4000
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda call: ask(served, call), calls))
    finally:  # one of the calls turned it on for all tests that share the account
        served.client("ec2").disable_ebs_encryption_by_default()
    wrong = {
        call["Action"]: (call, answer)
        for call, answer in zip(calls, answers, strict=True)
        if answer[0] >= 500
    }
    assert not wrong
    codes = {code for status, code, _ in answers if status >= 400}
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+(\.[A-Z][A-Za-z]+)?", code) for code in codes), codes
    assert {status for status, _, _ in answers} <= {200, 400, 412}


def test_a_call_without_an_output_says_that_it_succeeded(account: Account) -> None:
    """Libcloud's methods return what `return` says."""
    ec2, instance = account.client("ec2"), account.one()
    image = ec2.create_image(InstanceId=instance, Name=new(), NoReboot=True)["ImageId"]
    wait(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available")
    [disk] = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"]
    tags = {"ResourceId.1": image, "Tag.1.Key": "a", "Tag.1.Value": "b"}
    group = ec2.create_security_group(GroupName=new(), Description="d")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": "22", "ToPort": "22", "CidrIp": "0.0.0.0/0"}
    pair = ec2.create_key_pair(KeyName=new())["KeyName"]
    volume = ec2.create_volume(AvailabilityZone=f"{SPOT_REGION}b", Size=1)["VolumeId"]
    wait(lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    for action, more in (
        ("CreateTags", tags),
        ("DeleteTags", tags),
        ("ModifyInstanceAttribute", {"InstanceId": instance, "DisableApiTermination.Value": "false"}),
        ("ModifyImageAttribute", {"ImageId": image, "Description.Value": "d"}),
        ("DeregisterImage", {"ImageId": image}),
        ("DeleteSnapshot", {"SnapshotId": disk["Ebs"]["SnapshotId"]}),
        ("AuthorizeSecurityGroupIngress", {"GroupId": group, **rule}),
        ("RevokeSecurityGroupIngress", {"GroupId": group, **rule}),
        ("DeleteSecurityGroup", {"GroupId": group}),
        ("DeleteKeyPair", {"KeyName": pair}),
        ("DeleteVolume", {"VolumeId": volume}),
    ):
        status, code, text = ask(account, {"Action": action, **more})
        assert (action, status, code, "<return>true</return>" in text) == (action, 200, "", True)


@pytest.mark.parametrize(
    ("operation", "parameters", "code"),
    [
        ("describe_instances", {"InstanceIds": ["i-00000000000000000"]}, "InvalidInstanceID.NotFound"),
        ("describe_instances", {"InstanceIds": ["web"]}, "InvalidInstanceID.Malformed"),
        ("describe_instances", {"InstanceIds": ["i-123"]}, "InvalidInstanceID.Malformed"),
        ("describe_images", {"ImageIds": ["ami-00000000000000000"]}, "InvalidAMIID.NotFound"),
        ("describe_images", {"ImageIds": ["ubuntu"]}, "InvalidAMIID.Malformed"),
        ("describe_snapshots", {"SnapshotIds": ["snap-00000000000000000"]}, "InvalidSnapshot.NotFound"),
        ("describe_volumes", {"VolumeIds": ["vol-00000000000000000"]}, "InvalidVolume.NotFound"),
        ("describe_security_groups", {"GroupIds": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
        ("describe_security_groups", {"GroupIds": ["ssh"]}, "InvalidGroupId.Malformed"),
        ("describe_subnets", {"SubnetIds": ["subnet-00000000000000000"]}, "InvalidSubnetID.NotFound"),
        ("describe_vpcs", {"VpcIds": ["vpc-00000000000000000"]}, "InvalidVpcID.NotFound"),
        ("delete_snapshot", {"SnapshotId": "snap-00000000000000000"}, "InvalidSnapshot.NotFound"),
        ("deregister_image", {"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        (
            "create_tags",
            {"Resources": ["i-00000000000000000"], "Tags": [{"Key": "a"}]},
            "InvalidInstanceID.NotFound",
        ),
        ("create_tags", {"Resources": ["web"], "Tags": [{"Key": "a"}]}, "InvalidID"),
        ("create_tags", {"Tags": [{"Key": "a"}]}, "MissingParameter"),
        ("describe_instances", {"Filters": [{"Name": "colour", "Values": ["red"]}]}, "InvalidParameterValue"),
        (
            "describe_instance_attribute",
            {"InstanceId": "web", "Attribute": "userData"},
            "InvalidInstanceID.Malformed",
        ),
        (
            "delete_launch_template",
            {"LaunchTemplateName": "none"},
            "InvalidLaunchTemplateName.NotFoundException",
        ),
        (
            "describe_launch_templates",
            {"LaunchTemplateIds": ["lt-00000000000000000"]},
            "InvalidLaunchTemplateId.NotFound",
        ),
    ],
)
def test_each_mistake_has_its_code(served: Account, operation: str, parameters: Any, code: str) -> None:
    assert refusal(getattr(served.client("ec2"), operation), **parameters) == (code, 400)


def test_mistakes_with_what_is_there_are_refused_too(account: Account) -> None:
    """moto fails on these, some of them with a state that later calls fail on."""
    ec2, identity = account.client("ec2"), account.one()
    vpc = account.instance(identity)["VpcId"]
    [acl] = ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NetworkAcls"]
    for operation, parameters, code in (
        ("delete_security_group", {"GroupName": "flux-rehearsal"}, "InvalidGroup.NotFound"),
        (
            "delete_security_group",
            {"GroupName": "a", "GroupId": account.group},
            "InvalidParameterCombination",
        ),
        ("associate_vpc_cidr_block", {"VpcId": vpc}, "MissingParameter"),
        ("create_subnet", {"VpcId": vpc}, "MissingParameter"),
        (
            "delete_network_acl_entry",
            {"NetworkAclId": acl["NetworkAclId"], "RuleNumber": 7, "Egress": True},
            "InvalidNetworkAclEntry.NotFound",
        ),
        (
            "modify_instance_attribute",
            {"InstanceId": identity, "BlockDeviceMappings": [{"DeviceName": "/dev/sdz", "Ebs": {}}]},
            "InvalidInstanceAttributeValue",
        ),
        (
            "modify_security_group_rules",
            {"GroupId": account.group, "SecurityGroupRules": [{"SecurityGroupRuleId": "sgr-1"}]},
            "MissingParameter",
        ),
        (
            "assign_private_ip_addresses",
            {
                "NetworkInterfaceId": account.instance(identity)["NetworkInterfaces"][0][
                    "NetworkInterfaceId"
                ],
                "PrivateIpAddresses": ["ten"],
            },
            "InvalidParameterValue",
        ),
        (
            "allocate_hosts",
            {"AvailabilityZone": "eu-north-1b", "InstanceType": "g6e.xlarge", "Quantity": 2147483647},
            "InvalidParameterValue",
        ),
    ):
        assert (operation, *refusal(getattr(ec2, operation), **parameters)) == (operation, code, 400)


def test_an_id_twice_is_that_id(account: Account) -> None:
    ec2, identity = account.client("ec2"), account.one()
    [group] = ec2.describe_instances(InstanceIds=[identity, identity])["Reservations"]
    assert [one["InstanceId"] for one in group["Instances"]] == [identity]


READS = [
    {"Action": "DescribeInstances", "Filter.1.Name": "instance-state-name", "Filter.1.Value.1": "running"},
    {"Action": "DescribeImages", "ImageId.1": "ami-0123456789abcdef0"},
    {"Action": "DescribeImages", "Owner.1": "self"},
    {"Action": "DescribeInstanceTypes", "InstanceType.1": "g6e.xlarge"},
    {"Action": "DescribeTags", "MaxResults": "5"},
    {"Action": "DescribeSubnets"},
    {"Action": "DescribeRegions", "RegionName.1": SPOT_REGION},
]


@pytest.mark.parametrize("call", READS, ids=lambda call: "-".join(list(call.values())[:2]))
@pytest.mark.parametrize("presigned", [False, True], ids=["header", "presigned"])
def test_a_get_is_answered_as_a_post(served: Account, call: dict[str, str], presigned: bool) -> None:
    def told(text: str) -> str:
        return re.sub(r"<requestId>[^<]*", "", text)

    by_post, by_get = ask(served, call), ask(served, call, "GET", presigned=presigned)
    assert by_post[0] == 200
    assert told(by_get[2]) == told(by_post[2])


@pytest.mark.parametrize("presigned", [False, True], ids=["header", "presigned"])
def test_a_get_changes_what_a_post_changes(account: Account, presigned: bool) -> None:
    launch = {"Action": "RunInstances", "ImageId": "ami-0123456789abcdef0", "InstanceType": "g6e.xlarge"}
    launch |= {"MinCount": "1", "MaxCount": "2", "SubnetId": account.subnet, "UserData": "IyEvYmluL3No"}
    launch |= {"BlockDeviceMapping.1.DeviceName": "/dev/sda1", "BlockDeviceMapping.1.Ebs.VolumeSize": "33"}
    status, _, text = ask(account, launch, "GET", presigned=presigned)
    identities = re.findall(r"<instanceId>([^<]*)", text)
    assert (status, len(identities)) == (200, 2)
    assert account.volume(identities[0])["Size"] == 33
    tag = {"Action": "CreateTags", "ResourceId.1": identities[0], "Tag.1.Key": "a", "Tag.1.Value": "b c&d=e"}
    assert ask(account, tag, "GET", presigned=presigned)[0] == 200
    assert account.instance(identities[0])["Tags"] == [{"Key": "a", "Value": "b c&d=e"}]
    end = {"Action": "TerminateInstances", "InstanceId.1": identities[0], "InstanceId.2": identities[1]}
    assert ask(account, end, "GET", presigned=presigned)[0] == 200
    account.reach(identities[0], "terminated")


def test_lists_count_from_nought_too(account: Account) -> None:
    """Libcloud's do."""
    identity = account.one()
    tag = {"Action": "CreateTags", "ResourceId.0": identity, "Tag.0.Key": "a", "Tag.0.Value": "b"}
    assert ask(account, tag)[0] == 200
    assert account.instance(identity)["Tags"] == [{"Key": "a", "Value": "b"}]


def test_every_answer_has_ec2s_namespace_and_no_error_has_one(account: Account) -> None:
    identity = account.one()
    for call in (
        {"Action": "DescribeInstances"},
        {"Action": "CreateTags", "ResourceId.1": identity, "Tag.1.Key": "a", "Tag.1.Value": "b"},
        {"Action": "GetConsoleOutput", "InstanceId": identity},
        {"Action": "RebootInstances", "InstanceId.1": identity},
        {"Action": "DescribeKeyPairs"},
    ):
        status, _, text = ask(account, call)
        assert (status, NAMESPACE in text) == (200, True), call
    _, code, text = ask(account, {"Action": "DescribeInstances", "InstanceId.1": "web"})
    assert code
    assert "xmlns" not in text
