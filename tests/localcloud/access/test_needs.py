"""What calls need: as boto3 sends them, and by AWS's Service Authorization Reference."""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.ec2.models import ec2_backends

from bake.localcloud.api.access import ec2_needs, service_needs
from bake.localcloud.api.access.ec2_needs import EBS_KMS, TABLE
from bake.localcloud.api.access.inventory import MotoInventory

from .calls import ACCOUNT, CASES, EC2, RUN, SHARED, TAGS, Expected, tagged
from .conftest import REGION, Cloud
from .node import ask

ROOT = Path(__file__).parents[3]
ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
# On each request: who calls, and where.
USUAL = {"aws:PrincipalAccount", "aws:PrincipalArn", "aws:RequestedRegion", "aws:SecureTransport"}
USUAL |= {"ec2:Region", "kms:CallerAccount"}


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


def test_a_copy_needs_the_key_of_its_source_in_the_sources_region(cloud: Cloud) -> None:
    there = "us-west-2"
    key = cloud.client("kms", region=there).create_key()["KeyMetadata"]["Arn"]
    ec2 = cloud.client("ec2", region=there)
    volume = ec2.create_volume(AvailabilityZone=f"{there}a", Size=1, Encrypted=True, KmsKeyId=key)
    snapshot = ec2.create_snapshot(VolumeId=volume["VolumeId"])["SnapshotId"]
    ec2_backends[ACCOUNT][there].snapshots[snapshot].kms_key_id = key  # which moto alone does not pass on
    found = needed(cloud, "ec2", "copy_snapshot", {"SourceSnapshotId": snapshot, "SourceRegion": there})
    via = {"kms:ViaService": [f"ec2.{there}.amazonaws.com"]}
    assert ("kms:Decrypt", key, via) in found


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
    services = "autoscaling|ebs|ec2|sqs|events|scheduler|kms|ssm|secretsmanager|servicequotas|pricing"
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
