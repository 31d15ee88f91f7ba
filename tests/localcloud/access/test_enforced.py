"""Refusals at the gateway: by resources and conditions, with the codes and messages of AWS's services."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest

from .conftest import REGION, Cloud, refusal

EC2 = f"arn:aws:ec2:{REGION}:123456789012:"
RUN: dict[str, Any] = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1}


def allow(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def tagged(*kinds: str, run: str = "r-1") -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": "bake:run", "Value": run}]} for kind in kinds]


def test_ec2_names_caller_action_and_resource(cloud: Cloud) -> None:
    key = cloud.caller(allow("ec2:RunInstances", f"{EC2}volume/*"), name="ec2-refused")
    code, status, said = refusal(cloud.client("ec2", key).run_instances, **RUN)
    assert (code, status) == ("UnauthorizedOperation", 403)
    said, encoded = said.split(". Encoded authorization failure message: ")
    assert re.fullmatch(r"[\w-]{400,}", encoded)
    assert said == (
        "You are not authorized to perform this operation. User: "
        "arn:aws:sts::123456789012:assumed-role/ec2-refused/bake is not authorized to perform: "
        f"ec2:RunInstances on resource: {EC2}instance/* because no identity-based policy allows the "
        "ec2:RunInstances action"
    )


def test_an_explicit_deny_is_named(cloud: Cloud) -> None:
    deny = {"Effect": "Deny", "Action": "ec2:TerminateInstances", "Resource": "*"}
    key = cloud.caller(allow("*"), deny)
    said = refusal(cloud.client("ec2", key).terminate_instances, InstanceIds=["i-1"])[2]
    assert f"{EC2}instance/i-1 with an explicit deny in an identity-based policy. Encoded" in said


@pytest.mark.parametrize(
    ("kinds", "run", "allowed"),
    [
        (("instance", "volume"), "r-1", True),
        (("instance",), "r-1", False),  # the volume is created without the tag
        (("instance", "volume"), "r-2", False),
        ((), "", False),
    ],
)
def test_a_launch_must_give_its_tags(cloud: Cloud, kinds: tuple[str, ...], run: str, allowed: bool) -> None:
    mine = {"StringEquals": {"aws:RequestTag/bake:run": "r-1"}}
    created = [f"{EC2}instance/*", f"{EC2}volume/*"]
    used = [f"{EC2}{kind}/*" for kind in ("network-interface", "subnet", "security-group")]
    key = cloud.caller(
        allow("ec2:RunInstances", created, Condition=mine),
        allow("ec2:RunInstances", [*used, f"arn:aws:ec2:{REGION}::image/*"]),
        allow("ec2:CreateTags", created, Condition={"StringEquals": {"ec2:CreateAction": "RunInstances"}}),
    )
    launch = cloud.client("ec2", key).run_instances
    if allowed:
        assert launch(**RUN, TagSpecifications=tagged(*kinds, run=run))["Instances"]
    else:
        assert refusal(launch, **RUN, TagSpecifications=tagged(*kinds, run=run))[0] == "UnauthorizedOperation"


def test_only_what_has_the_tag_may_be_ended(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    image = ec2.register_image(Name=uuid.uuid4().hex, RootDeviceName="/dev/sda1")["ImageId"]
    [mine, other] = ec2.run_instances(ImageId=image, MinCount=2, MaxCount=2)["Instances"]
    ec2.create_tags(Resources=[mine["InstanceId"]], Tags=[{"Key": "bake:run", "Value": "r-1"}])
    tag = {"Null": {"aws:ResourceTag/bake:run": "false"}}
    caller = cloud.client("ec2", cloud.caller(allow("ec2:TerminateInstances", Condition=tag)))
    both = [mine["InstanceId"], other["InstanceId"]]
    assert refusal(caller.terminate_instances, InstanceIds=both)[0] == "UnauthorizedOperation"
    caller.terminate_instances(InstanceIds=both[:1])


def test_tags_of_what_is_there_may_not_be_changed_by_the_right_to_tag_at_creation(cloud: Cloud) -> None:
    group = cloud.client("ec2").create_security_group(GroupName=uuid.uuid4().hex, Description="d")["GroupId"]
    at_creation = {"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateSecurityGroup"]}}
    key = cloud.caller(allow("ec2:CreateTags", Condition=at_creation))
    tags = [{"Key": "a", "Value": "b"}]
    assert (
        refusal(cloud.client("ec2", key).create_tags, Resources=[group], Tags=tags)[0]
        == "UnauthorizedOperation"
    )


def test_a_role_is_passed_only_where_it_may_be(cloud: Cloud) -> None:
    from bake.localcloud.lifecycle.fixtures import PROFILE

    iam = cloud.client("iam")
    if not [
        one
        for one in iam.list_instance_profiles()["InstanceProfiles"]
        if one["InstanceProfileName"] == PROFILE
    ]:
        iam.create_instance_profile(InstanceProfileName=PROFILE)
        iam.add_role_to_instance_profile(InstanceProfileName=PROFILE, RoleName=PROFILE)
    role = f"arn:aws:iam::123456789012:role/{PROFILE}"
    scheduler = {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}
    key = cloud.caller(allow("ec2:*"), allow("iam:PassRole", role, Condition=scheduler))
    said = refusal(cloud.client("ec2", key).run_instances, **RUN, IamInstanceProfile={"Name": PROFILE})[2]
    assert f"is not authorized to perform: iam:PassRole on resource: {role}" in said


def test_what_the_local_cloud_does_not_know_is_left_to_the_administrator(cloud: Cloud) -> None:
    key = cloud.caller(allow("*"))
    code, _, said = refusal(cloud.client("ec2", key).create_vpc, CidrBlock="10.9.0.0/16")
    assert code == "UnauthorizedOperation"
    assert "ec2:CreateVpc because the local cloud does not know what it needs" in said
    vpc = cloud.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    cloud.client("ec2").delete_vpc(VpcId=vpc)


GOOD = {"Effect": "Allow", "Action": "*", "Resource": "*"}
WITHOUT_ACTION = {"Effect": "Allow", "Resource": "*"}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="a list"),
        pytest.param('{"Version": "2012-10-17"}', id="no statement"),
        pytest.param(json.dumps({"Version": "2026-01-01", "Statement": GOOD}), id="no version of AWS's"),
        *(
            pytest.param(json.dumps({"Version": "2012-10-17", "Statement": one}), id=name)
            for name, one in {
                "no effect of AWS's": {**GOOD, "Effect": "Perhaps"},
                "no action": WITHOUT_ACTION,
                "no resource": {"Effect": "Allow", "Action": "*"},
                "a resource that is no ARN": {**GOOD, "Resource": "queue"},
                "an action without a service": {**GOOD, "Action": "run"},
                "an action and its opposite": {**GOOD, "NotAction": "s3:*"},
                "an unknown element": {**GOOD, "Where": "here"},
                "an unknown operator": {**GOOD, "Condition": {"Sounds": {"aws:SourceArn": "b"}}},
                "a principal": {**GOOD, "Principal": "*"},
            }.items()
        ),
    ],
)
def test_a_malformed_policy_is_refused(cloud: Cloud, document: str) -> None:
    iam, name = cloud.client("iam"), f"malformed-{uuid.uuid4().hex[:8]}"
    cloud.caller(name=name)
    put = {"RoleName": name, "PolicyName": "p", "PolicyDocument": document}
    assert refusal(iam.put_role_policy, **put)[:2] == ("MalformedPolicyDocument", 400)
    assert (
        refusal(iam.create_policy, PolicyName=name, PolicyDocument=document)[0] == "MalformedPolicyDocument"
    )


def test_a_queues_own_policy_counts(cloud: Cloud) -> None:
    sqs, name = cloud.client("sqs"), f"own-{uuid.uuid4().hex[:8]}"
    url, arn = sqs.create_queue(QueueName=name)["QueueUrl"], f"arn:aws:sqs:{REGION}:123456789012:{name}"
    caller = cloud.caller(allow("sqs:GetQueueAttributes"))
    role = f"arn:aws:iam::123456789012:role/{caller.principal.role}"
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": role}, "Action": "sqs:SendMessage", "Resource": arn},
        {"Effect": "Deny", "Principal": "*", "Action": "sqs:GetQueueAttributes", "Resource": arn},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    mine = cloud.client("sqs", caller)
    mine.send_message(QueueUrl=url, MessageBody="x")
    said = refusal(mine.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])[2]
    assert said.endswith("with an explicit deny in a resource-based policy")


def test_a_keys_policy_decides_whether_the_accounts_own_count(cloud: Cloud) -> None:
    kms = cloud.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    caller = cloud.caller(allow("kms:DescribeKey", key))
    assert cloud.client("kms", caller).describe_key(KeyId=key)["KeyMetadata"]["Arn"] == key
    other = allow("kms:*", Principal={"AWS": "arn:aws:iam::123456789012:role/other"})
    policy = json.dumps({"Version": "2012-10-17", "Statement": [other]})
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=policy)
    assert refusal(cloud.client("kms", caller).describe_key, KeyId=key)[0] == "AccessDeniedException"
    mine = policy.replace("role/other", f"role/{caller.principal.role}")
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=mine)
    cloud.client("kms", caller).describe_key(KeyId=key)


def test_a_buckets_own_policy_counts(cloud: Cloud) -> None:
    s3, name = cloud.client("s3"), f"own-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    caller = cloud.client("s3", cloud.caller(allow("s3:*")))
    caller.put_object(Bucket=name, Key="k", Body=b"x")
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{name}/*",
    }
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    said = refusal(caller.put_object, Bucket=name, Key="k", Body=b"x")[2]
    assert said.endswith("with an explicit deny in a resource-based policy")


def test_calls_are_as_those_of_endpoints_with_tls(cloud: Cloud) -> None:
    """A policy that refuses all others, as queues and buckets have it, refuses none."""
    sqs, name = cloud.client("sqs"), f"own-{uuid.uuid4().hex[:8]}"
    url, arn = sqs.create_queue(QueueName=name)["QueueUrl"], f"arn:aws:sqs:{REGION}:123456789012:{name}"
    mine = cloud.client("sqs", cloud.caller(allow("sqs:SendMessage", arn)))

    def refuse(secure: str) -> None:
        deny = {**allow("sqs:*", arn), "Effect": "Deny", "Principal": "*"}
        deny["Condition"] = {"Bool": {"aws:SecureTransport": secure}}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})

    refuse("false")
    mine.send_message(QueueUrl=url, MessageBody="x")
    refuse("true")
    assert refusal(mine.send_message, QueueUrl=url, MessageBody="x")[:2] == ("AccessDenied", 403)


# --- S3 --------------------------------------------------------------------------------------------


def test_an_absent_object_is_denied_to_whoever_may_not_list_the_bucket(cloud: Cloud, bucket: str) -> None:
    objects = allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*")
    blind = cloud.client("s3", cloud.caller(objects))
    code, status, said = refusal(blind.get_object, Bucket=bucket, Key="absent")
    assert (code, status) == ("AccessDenied", 403)
    assert f's3:ListBucket on resource: "arn:aws:s3:::{bucket}" because no identity-based' in said
    assert refusal(blind.head_object, Bucket=bucket, Key="absent")[:2] == ("403", 403)
    assert blind.get_object(Bucket=bucket, Key="key")["Body"].read() == b"content"
    seeing = cloud.client("s3", cloud.caller(objects, allow("s3:ListBucket", f"arn:aws:s3:::{bucket}")))
    assert refusal(seeing.get_object, Bucket=bucket, Key="absent")[:2] == ("NoSuchKey", 404)
    assert refusal(seeing.head_object, Bucket=bucket, Key="absent")[:2] == ("404", 404)


def test_so_is_the_absent_source_of_a_copy(cloud: Cloud, bucket: str) -> None:
    objects = allow(["s3:GetObject", "s3:PutObject"])
    copy = {"Bucket": bucket, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "absent"}}
    assert refusal(cloud.client("s3", cloud.caller(objects)).copy_object, **copy)[0] == "AccessDenied"
    seeing = cloud.client("s3", cloud.caller(objects, allow("s3:ListBucket")))
    assert refusal(seeing.copy_object, **copy)[0] == "NoSuchKey"
    assert refusal(seeing.copy_object, **{**copy, "Bucket": "none-such"})[0] == "NoSuchBucket"


def test_an_absent_bucket_is_absent_for_all(cloud: Cloud) -> None:
    caller = cloud.client("s3", cloud.caller(allow("s3:GetObject")))
    assert refusal(caller.get_object, Bucket="none-such", Key="k")[:2] == ("NoSuchBucket", 404)


@pytest.mark.parametrize("where", [None, "eu-north-1"])
def test_a_bucket_outside_us_east_1_names_its_region(cloud: Cloud, where: str | None) -> None:
    more: Any = {"CreateBucketConfiguration": {"LocationConstraint": where}} if where else {}
    found = refusal(cloud.client("s3").create_bucket, Bucket=f"bake-{uuid.uuid4().hex[:8]}", **more)
    assert found[:2] == ("IllegalLocationConstraintException", 400)


def test_a_bucket_with_tags_but_no_region_is_refused_too(cloud: Cloud) -> None:
    tags: Any = {"Tags": [{"Key": "a", "Value": "b"}]}
    create = cloud.client("s3").create_bucket
    found = refusal(create, Bucket=f"bake-{uuid.uuid4().hex[:8]}", CreateBucketConfiguration=tags)
    assert found[0] == "IllegalLocationConstraintException"
