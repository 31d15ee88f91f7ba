"""What calls need: as boto3 sends them, and by AWS's Service Authorization Reference."""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bake.localcloud.api.access import ec2_needs, service_needs
from bake.localcloud.api.access.ec2_needs import EBS_KMS, TABLE
from bake.localcloud.api.access.inventory import MotoInventory

from .conftest import REGION, Cloud
from .node import ask

ROOT = Path(__file__).parents[3]
ACCOUNT = "123456789012"
EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}:"
SHARED = f"arn:aws:ec2:{REGION}::"
EVENTS = f"arn:aws:events:{REGION}:{ACCOUNT}:"
SCHEDULER = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:"
PARAMETER = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/golden"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bake-reaper"
ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
TAGS = [{"Key": "bake:run", "Value": "r-1"}]
# On each request: who calls, and where.
USUAL = {"aws:PrincipalAccount", "aws:PrincipalArn", "aws:RequestedRegion", "ec2:Region", "kms:CallerAccount"}


def tagged(*kinds: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": TAGS} for kind in kinds]


GIVEN = {"aws:RequestTag/bake:run": ["r-1"], "aws:TagKeys": ["bake:run"]}
CREATE = {
    operation: {**GIVEN, "ec2:CreateAction": [operation]}
    for operation in ("RunInstances", "CreateImage", "ImportKeyPair", "CreateSecurityGroup")
}
RUN: dict[str, Any] = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1, "SubnetId": "subnet-1"}
SCHEDULE: dict[str, Any] = {
    "Name": "s-1",
    "GroupName": "bake-1",
    "ScheduleExpression": "at(2030-01-01T00:00:00)",
    "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances", "RoleArn": ROLE},
}
PASS = {"iam:PassedToService": ["scheduler.amazonaws.com"]}
Expected = list[tuple[str, str, dict[str, list[str]]]]
CASES: list[tuple[str, str, dict[str, Any], Expected]] = [
    (
        "ec2",
        "run_instances",
        {
            **RUN,
            "SecurityGroupIds": ["sg-1"],
            "KeyName": "k",
            "TagSpecifications": tagged("instance", "volume"),
        },
        [
            ("ec2:RunInstances", f"{EC2}instance/*", GIVEN),
            ("ec2:RunInstances", f"{EC2}volume/*", GIVEN),
            ("ec2:RunInstances", f"{EC2}network-interface/*", {}),
            ("ec2:RunInstances", f"{EC2}key-pair/k", {}),
            ("ec2:RunInstances", f"{SHARED}image/ami-1", {}),
            ("ec2:RunInstances", f"{EC2}subnet/subnet-1", {}),
            ("ec2:RunInstances", f"{EC2}security-group/sg-1", {}),
            ("ec2:CreateTags", f"{EC2}instance/*", CREATE["RunInstances"]),
            ("ec2:CreateTags", f"{EC2}volume/*", CREATE["RunInstances"]),
        ],
    ),
    (
        "ec2",
        "run_instances",
        {
            **{name: value for name, value in RUN.items() if name != "SubnetId"},
            "NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": "subnet-2", "Groups": ["sg-2"]}],
            "InstanceMarketOptions": {"MarketType": "spot"},
            "TagSpecifications": tagged("spot-instances-request"),
        },
        [
            ("ec2:RunInstances", f"{EC2}instance/*", {}),
            ("ec2:RunInstances", f"{EC2}volume/*", {}),
            ("ec2:RunInstances", f"{EC2}network-interface/*", {}),
            ("ec2:RunInstances", f"{EC2}spot-instances-request/*", GIVEN),
            ("ec2:RunInstances", f"{SHARED}image/ami-1", {}),
            ("ec2:RunInstances", f"{EC2}subnet/subnet-2", {}),
            ("ec2:RunInstances", f"{EC2}security-group/sg-2", {}),
            ("ec2:CreateTags", f"{EC2}spot-instances-request/*", CREATE["RunInstances"]),
        ],
    ),
    (
        "ec2",
        "create_image",
        {"InstanceId": "i-1", "Name": "name", "TagSpecifications": tagged("image", "snapshot")},
        [
            ("ec2:CreateImage", f"{EC2}instance/i-1", {}),
            ("ec2:CreateImage", f"{SHARED}image/*", GIVEN),
            ("ec2:CreateImage", f"{SHARED}snapshot/*", GIVEN),
            ("ec2:CreateTags", f"{SHARED}image/*", CREATE["CreateImage"]),
            ("ec2:CreateTags", f"{SHARED}snapshot/*", CREATE["CreateImage"]),
        ],
    ),
    (
        "ec2",
        "terminate_instances",
        {"InstanceIds": ["i-1", "i-2"]},
        [("ec2:TerminateInstances", f"{EC2}instance/i-{number}", {}) for number in (1, 2)],
    ),
    ("ec2", "describe_images", {"Owners": ["self"]}, [("ec2:DescribeImages", "*", {})]),
    (
        "ec2",
        "import_key_pair",
        {"KeyName": "k", "PublicKeyMaterial": b"x", "TagSpecifications": tagged("key-pair")},
        [
            ("ec2:ImportKeyPair", f"{EC2}key-pair/*", GIVEN),
            ("ec2:CreateTags", f"{EC2}key-pair/*", CREATE["ImportKeyPair"]),
        ],
    ),
    ("ec2", "delete_key_pair", {"KeyName": "k"}, [("ec2:DeleteKeyPair", f"{EC2}key-pair/k", {})]),
    (
        "ec2",
        "create_security_group",
        {
            "GroupName": "g",
            "Description": "d",
            "VpcId": "vpc-1",
            "TagSpecifications": tagged("security-group"),
        },
        [
            ("ec2:CreateSecurityGroup", f"{EC2}security-group/*", GIVEN),
            ("ec2:CreateSecurityGroup", f"{EC2}vpc/vpc-1", {}),
            ("ec2:CreateTags", f"{EC2}security-group/*", CREATE["CreateSecurityGroup"]),
        ],
    ),
    ("ec2", "deregister_image", {"ImageId": "ami-1"}, [("ec2:DeregisterImage", f"{SHARED}image/ami-1", {})]),
    (
        "ec2",
        "create_tags",
        {"Resources": ["ami-1", "snap-1", "i-1", "sir-1"], "Tags": TAGS},
        [
            ("ec2:CreateTags", f"{SHARED}image/ami-1", GIVEN),
            ("ec2:CreateTags", f"{SHARED}snapshot/snap-1", GIVEN),
            ("ec2:CreateTags", f"{EC2}instance/i-1", GIVEN),
            ("ec2:CreateTags", f"{EC2}spot-instances-request/sir-1", GIVEN),
        ],
    ),
    (
        "sqs",
        "create_queue",
        {"QueueName": "bake-needs", "tags": {"bake:run": "r-1"}},
        [
            ("sqs:CreateQueue", f"arn:aws:sqs:{REGION}:{ACCOUNT}:bake-needs", GIVEN),
            ("sqs:TagQueue", f"arn:aws:sqs:{REGION}:{ACCOUNT}:bake-needs", GIVEN),
        ],
    ),
    ("sqs", "list_queues", {}, [("sqs:ListQueues", "*", {})]),
    (
        "s3",
        "create_bucket",
        {"Bucket": "bake-needs", "CreateBucketConfiguration": {"LocationConstraint": REGION, "Tags": TAGS}},
        [
            ("s3:CreateBucket", "arn:aws:s3:::bake-needs", GIVEN),
            ("s3:TagResource", "arn:aws:s3:::bake-needs", GIVEN),
        ],
    ),
    (
        "events",
        "create_event_bus",
        {"Name": "bake-needs", "Tags": TAGS},
        [
            ("events:CreateEventBus", f"{EVENTS}event-bus/bake-needs", GIVEN),
            ("events:TagResource", f"{EVENTS}event-bus/bake-needs", GIVEN),
        ],
    ),
    (
        "events",
        "put_rule",
        {"Name": "r", "EventBusName": "bake-none", "EventPattern": "{}", "Tags": TAGS},
        [
            ("events:PutRule", f"{EVENTS}rule/bake-none/r", GIVEN),
            ("events:TagResource", f"{EVENTS}rule/bake-none/r", GIVEN),
        ],
    ),
    (
        "events",
        "remove_targets",
        {"Rule": "r", "EventBusName": "bake-none", "Ids": ["1"]},
        [("events:RemoveTargets", f"{EVENTS}rule/bake-none/r", {})],
    ),
    ("events", "list_rules", {"EventBusName": "bake-none"}, [("events:ListRules", "*", {})]),
    (
        "scheduler",
        "create_schedule",
        SCHEDULE,
        [
            ("scheduler:CreateSchedule", f"{SCHEDULER}schedule/bake-1/s-1", {}),
            ("iam:PassRole", ROLE, PASS),
        ],
    ),
    (
        "scheduler",
        "delete_schedule",
        {"Name": "s-1", "GroupName": "bake-1"},
        [("scheduler:DeleteSchedule", f"{SCHEDULER}schedule/bake-1/s-1", {})],
    ),
    (
        "ssm",
        "get_parameter",
        {"Name": "/aws/service/ami:3"},
        [("ssm:GetParameter", f"arn:aws:ssm:{REGION}::parameter/aws/service/ami", {})],
    ),
    (
        "ssm",
        "get_parameter",
        {"Name": "base"},
        [("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/base", {})],
    ),
    (
        "ssm",
        "put_parameter",
        {"Name": "/golden", "Value": "ami-1", "Type": "String", "DataType": "aws:ec2:image", "Tags": TAGS},
        [
            ("ssm:PutParameter", PARAMETER, {**GIVEN, "ssm:Overwrite": ["false"]}),
            ("ssm:AddTagsToResource", PARAMETER, GIVEN),
            ("ec2:DescribeImages", "*", {}),
        ],
    ),
    (
        "ssm",
        "put_parameter",
        {"Name": "golden", "Value": "x", "Overwrite": True},
        [("ssm:PutParameter", PARAMETER, {"ssm:Overwrite": ["true"]})],
    ),
    (
        "ssm",
        "get_parameter_history",
        {"Name": "none"},
        [("ssm:GetParameterHistory", f"{PARAMETER[:-6]}none", {})],
    ),
    (
        "ssm",
        "label_parameter_version",
        {"Name": f"{PARAMETER[:-6]}none:3", "Labels": ["x"]},
        [("ssm:LabelParameterVersion", f"{PARAMETER[:-6]}none", {})],
    ),
    (
        "secretsmanager",
        "get_secret_value",
        {"SecretId": "hub"},
        [("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:hub", {})],
    ),
    (
        "iam",
        "get_instance_profile",
        {"InstanceProfileName": "p"},
        [("iam:GetInstanceProfile", f"arn:aws:iam::{ACCOUNT}:instance-profile/p", {})],
    ),
    (
        "service-quotas",
        "get_service_quota",
        {"ServiceCode": "ec2", "QuotaCode": "L-1"},
        [("servicequotas:GetServiceQuota", f"arn:aws:servicequotas:{REGION}:{ACCOUNT}:ec2/L-1", {})],
    ),
    ("sts", "get_caller_identity", {}, []),
]


def needed(cloud: Cloud, service: str, operation: str, parameters: dict[str, Any]) -> Expected:
    key = cloud.caller(ALL)
    with suppress(ClientError):  # moto does not know most of the ids; what was needed is recorded before
        getattr(cloud.client(service, key), operation)(**parameters)
    found = cloud.needed(key)
    assert all(one["allowed"] for one in found)
    return [
        (one["action"], one["resource"], {k: v for k, v in one["context"].items() if k not in USUAL})
        for one in found
    ]


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "expected"),
    CASES,
    ids=[f"{number} {one[0]} {one[1]}" for number, one in enumerate(CASES)],
)
def test_a_call_needs_its_actions_on_its_resources(
    cloud: Cloud, service: str, operation: str, parameters: dict[str, Any], expected: Expected
) -> None:
    assert needed(cloud, service, operation, parameters) == expected


def test_an_instance_that_is_there_has_the_tags_that_it_has_now(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    image = ec2.register_image(Name=uuid.uuid4().hex, RootDeviceName="/dev/sda1")["ImageId"]
    run = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tagged("instance"))
    instance = run["Instances"][0]["InstanceId"]
    ours = {"aws:ResourceTag/bake:run": ["r-1"], "ec2:ResourceTag/bake:run": ["r-1"]}
    stopping = ("ec2:StopInstances", f"{EC2}instance/{instance}", ours)
    assert needed(cloud, "ec2", "stop_instances", {"InstanceIds": [instance]}) == [stopping]
    ec2.delete_tags(Resources=[instance], Tags=[{"Key": "bake:run"}])
    assert needed(cloud, "ec2", "terminate_instances", {"InstanceIds": [instance]})[0][2] == {}


def test_a_launch_hands_the_profiles_role_to_ec2(cloud: Cloud) -> None:
    iam, name = cloud.client("iam"), f"p-{uuid.uuid4().hex[:8]}"
    iam.create_instance_profile(InstanceProfileName=name)
    iam.create_role(
        RoleName=name, AssumeRolePolicyDocument='{"Version": "2012-10-17", "Statement": []}', Path="/a/"
    )
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    found = needed(cloud, "ec2", "run_instances", {**RUN, "IamInstanceProfile": {"Name": name}})
    role = f"arn:aws:iam::{ACCOUNT}:role/a/{name}"
    assert found[-1] == ("iam:PassRole", role, {"iam:PassedToService": ["ec2.amazonaws.com"]})


def test_a_launch_by_a_parameter_reads_it_and_uses_its_ami(cloud: Cloud) -> None:
    name = f"launched-{uuid.uuid4().hex[:8]}"
    cloud.client("ssm").put_parameter(Name=name, Value="ami-7", Type="String", Tags=TAGS)
    found = needed(cloud, "ec2", "run_instances", {**RUN, "ImageId": f"resolve:ssm:{name}:1"})
    assert ("ec2:RunInstances", f"{SHARED}image/ami-7", {}) in found
    arn = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{name}"
    assert found[-1] == ("ssm:GetParameters", arn, {"aws:ResourceTag/bake:run": ["r-1"]})


def test_a_key_of_the_accounts_own_needs_what_ebs_does_with_it(cloud: Cloud) -> None:
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"Encrypted": True, "KmsKeyId": key}}
    found = needed(cloud, "ec2", "run_instances", {**RUN, "BlockDeviceMappings": [disk]})
    via = {"kms:ViaService": [f"ec2.{REGION}.amazonaws.com"]}
    assert found[-6] == ("kms:CreateGrant", key, {**via, "kms:GrantIsForAWSResource": ["true"]})
    assert [one[:2] for one in found[-5:]] == [(f"kms:{action}", key) for action in EBS_KMS]


@pytest.mark.parametrize("key", ["alias/aws/ebs", ""])
def test_the_key_of_ebs_itself_needs_nothing(cloud: Cloud, key: str) -> None:
    ebs = {"Encrypted": True, "KmsKeyId": key} if key else {"Encrypted": True}
    disk = {"DeviceName": "/dev/sda1", "Ebs": ebs}
    found = needed(cloud, "ec2", "run_instances", {**RUN, "BlockDeviceMappings": [disk]})
    assert not [one for one in found if one[0].startswith("kms:")]


# --- by the Service Authorization Reference ----------------------------------------------------------


def samples() -> list[tuple[str, str, dict[str, Any]]]:
    """Each operation of the table, with a parameter of each kind that it takes."""
    of_cases = [(service, operation, parameters) for service, operation, parameters, _ in CASES]
    return [*of_cases, *(("ec2", operation, {}) for operation in sorted(TABLE))]


def _covers(arn: str, pattern: str) -> bool:
    """Whether an ARN has a form like `arn:${Partition}:ec2:${Region}:${Account}:volume/${VolumeId}`."""
    parts = [".*" if part.startswith("${") else re.escape(part) for part in re.split(r"(\$\{\w+\})", pattern)]
    return re.fullmatch("".join(parts), arn) is not None


def _known(key: str, keys: list[str]) -> bool:
    return any(_covers(key.lower(), one.lower()) for one in keys)


def test_each_need_is_one_of_the_service_authorization_reference(cloud: Cloud) -> None:
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for service, operation, parameters in samples():
        if operation in TABLE:
            listed = ec2_needs.needs_of(operation, REGION, {}, MotoInventory()) or []
            found += [(one.action, one.resource, tuple(one.context)) for one in listed]
        else:
            found += [
                (action, arn, tuple(keys))
                for action, arn, keys in needed(cloud, service, operation, parameters)
            ]
    actions = sorted({action for action, _, _ in found})
    reference = dict(zip(actions, ask("actions.mjs", actions), strict=True))
    assert [action for action in actions if reference[action] is None] == []
    for action, arn, keys in found:
        about = reference[action]
        types = [one for one in about["types"].values() if _covers(arn, one["arn"])]
        assert (arn == "*") is about["wildcardOnly"], (action, arn)
        assert types or arn == "*", (action, arn)
        for key in keys:
            assert _known(key, about["keys"] + [one for each in types for one in each["keys"]]), (
                action,
                arn,
                key,
            )
    for action in actions:
        missing = {
            name
            for name, one in reference[action]["types"].items()
            if one["required"]
            and not any(_covers(arn, one["arn"]) for named, arn, _ in found if named == action)
        }
        assert not missing, (action, missing)


# A condition key, and what a profile's own proxy command needs.
NO_CALL = {"ec2:CreateAction", "ssm:StartSession", "ssm:TerminateSession"}


def documented() -> list[str]:
    """The actions in the policies of the documentation."""
    texts = [
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("docs/aws.md", "docs/weights.md", "worker/README.md")
    ]
    services = "ec2|sqs|events|scheduler|kms|ssm|secretsmanager|servicequotas|pricing"
    found = {action for text in texts for action in re.findall(rf'"(?:{services}):\w+"', text)}
    return sorted({action.strip('"') for action in found} - NO_CALL)


@pytest.mark.parametrize("action", documented())
def test_each_documented_action_is_one_that_the_local_cloud_asks_for(action: str) -> None:
    """But those that come with another call, as kms:CreateGrant with a launch."""
    service, operation = action.split(":")
    if service == "kms" and operation in {"CreateGrant", *EBS_KMS}:
        return
    any_name = dict.fromkeys(("Name", "KeyId", "SecretId", "ResourceARN", "ResourceArn"), "x")
    if service == "ec2":
        needs = ec2_needs.needs_of(operation, REGION, {"ResourceId.1": "i-1"}, MotoInventory())
    else:
        needs = service_needs.needs_of(service, operation, REGION, any_name, "/", MotoInventory())
    assert needs is not None
    assert action in [need.action for need in needs]
