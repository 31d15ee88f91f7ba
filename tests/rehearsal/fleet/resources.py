"""How each kind of a fleet's resources is made by AWS's own calls, and removed.

A property that is not known here is an error, and so is one that botocore's model of the call has not got.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

Clients = Callable[[str], Any]
Remove = Callable[[], Any]
_REQUIRED: Any = object()
_SETTLING_SECONDS = 120.0


@dataclass(frozen=True)
class Made:
    """What Ref and Fn::GetAtt give of a resource, and what removes it."""

    ref: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    remove: Remove = lambda: None


class Properties:
    """A resource's properties, each of which is to be taken once."""

    def __init__(self, name: str, content: Mapping[str, Any]) -> None:
        self.name, self._left = name, dict(content)

    def take(self, name: str, default: Any = _REQUIRED) -> Any:
        """The property's value."""
        if name not in self._left and default is _REQUIRED:
            raise ValueError(f"{self.name} has no {name}")
        return self._left.pop(name, default)

    def some(self, *names: str) -> dict[str, Any]:
        """Those of these that there are."""
        return {name: self._left.pop(name) for name in names if name in self._left}

    def none_left(self) -> None:
        """Raise ValueError for properties that nobody has taken."""
        if self._left:
            raise ValueError(f"{self.name}: nothing here knows {', '.join(sorted(self._left))}")


def _soon(call: Callable[..., Any], *, code: str = "NoSuchEntity", **asked: Any) -> Any:
    """Call AWS about what was made or removed just now, of which a replica may not know yet."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    while True:
        try:
            return call(**asked)
        except ClientError as error:
            if error.response["Error"]["Code"] != code or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _queue(clients: Clients, name: str, asked: Properties) -> Made:
    sqs = clients("sqs")
    name = asked.take("QueueName", name)
    plain = asked.some(
        *("DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds"),
        *("VisibilityTimeout", "SqsManagedSseEnabled", "KmsMasterKeyId"),
    )
    documents = asked.some("RedrivePolicy", "RedriveAllowPolicy")
    attributes = {key: json.dumps(value).strip('"') for key, value in {**plain, **documents}.items()}
    tags = {tag["Key"]: tag["Value"] for tag in asked.take("Tags", [])}
    asked.none_left()
    url = sqs.create_queue(QueueName=name, Attributes=attributes, tags=tags)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    told = {"Arn": arn, "QueueName": name, "QueueUrl": url}
    return Made(url, told, lambda: sqs.delete_queue(QueueUrl=url))


def _queue_policy(clients: Clients, name: str, asked: Properties) -> Made:
    sqs, policy = clients("sqs"), json.dumps(asked.take("PolicyDocument"))
    for url in asked.take("Queues"):
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    asked.none_left()
    return Made(name)


def _bucket(clients: Clients, name: str, asked: Properties) -> Made:
    s3 = clients("s3")
    name = asked.take("BucketName", name).lower()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    if encryption := asked.take("BucketEncryption", None):
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=_encryption(encryption))
    if rules := asked.take("LifecycleConfiguration", None):
        lifecycle = {"Rules": [_lifecycle_rule(name, rule) for rule in rules["Rules"]]}
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration=lifecycle)
    for key, put in (
        ("PublicAccessBlockConfiguration", s3.put_public_access_block),
        ("OwnershipControls", s3.put_bucket_ownership_controls),
        ("VersioningConfiguration", s3.put_bucket_versioning),
    ):
        if (value := asked.take(key, None)) is not None:
            put(Bucket=name, **{key: value})
    if tags := asked.take("Tags", None):
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
    asked.none_left()
    return Made(name, {"Arn": f"arn:aws:s3:::{name}"}, lambda: _remove_bucket(s3, name))


def _encryption(asked: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {"ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault"}
    rules = asked["ServerSideEncryptionConfiguration"]
    return {"Rules": [{renamed.get(key, key): value for key, value in rule.items()} for rule in rules]}


def _lifecycle_rule(name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A rule as S3's own call has it."""
    left = Properties(f"a lifecycle rule of {name}", asked)
    rule = {"Status": left.take("Status"), "Filter": {"Prefix": left.take("Prefix", "")}}
    for key, of, days in (
        ("Id", "ID", ""),
        ("ExpirationInDays", "Expiration", "Days"),
        ("NoncurrentVersionExpiration", "NoncurrentVersionExpiration", ""),
        ("AbortIncompleteMultipartUpload", "AbortIncompleteMultipartUpload", ""),
    ):
        if (value := left.take(key, None)) is not None:
            rule[of] = {days: value} if days else value
    if left.take("ExpiredObjectDeleteMarker", False):
        rule["Expiration"] = {**rule.get("Expiration", {}), "ExpiredObjectDeleteMarker": True}
    left.none_left()
    return rule


def _remove_bucket(s3: Any, name: str) -> None:
    """Remove a bucket with all that is in it; a list may lack what was written just now."""

    def remove() -> Any:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            for one in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                s3.delete_object(Bucket=name, Key=one["Key"], VersionId=one["VersionId"])
        return s3.delete_bucket(Bucket=name)

    _soon(remove, code="BucketNotEmpty")


def _bucket_policy(clients: Clients, name: str, asked: Properties) -> Made:
    policy = json.dumps(asked.take("PolicyDocument"))
    clients("s3").put_bucket_policy(Bucket=asked.take("Bucket"), Policy=policy)
    asked.none_left()
    return Made(name)


def _bus(clients: Clients, name: str, asked: Properties) -> Made:
    events = clients("events")
    name = asked.take("Name", name)
    arn = events.create_event_bus(Name=name, **asked.some("Description", "Tags"))["EventBusArn"]
    asked.none_left()
    return Made(name, {"Arn": arn, "Name": name}, lambda: events.delete_event_bus(Name=name))


def _role(clients: Clients, name: str, asked: Properties) -> Made:
    iam = clients("iam")
    name, policies = asked.take("RoleName", name), asked.take("Policies", [])
    managed = asked.take("ManagedPolicyArns", [])
    trust = json.dumps(asked.take("AssumeRolePolicyDocument"))
    more = asked.some("Description", "MaxSessionDuration", "Path", "Tags")
    asked.none_left()
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, **more)["Role"]
    for policy in policies:
        document = json.dumps(policy["PolicyDocument"])
        _soon(iam.put_role_policy, RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=document)
    for arn in managed:
        _soon(iam.attach_role_policy, RoleName=name, PolicyArn=arn)

    def remove() -> None:
        for policy in policies:
            _soon(iam.delete_role_policy, RoleName=name, PolicyName=policy["PolicyName"])
        for arn in managed:
            _soon(iam.detach_role_policy, RoleName=name, PolicyArn=arn)
        _soon(iam.delete_role, RoleName=name)

    return Made(name, {"Arn": made["Arn"], "RoleId": made["RoleId"]}, remove)


def _profile(clients: Clients, name: str, asked: Properties) -> Made:
    iam, [role] = clients("iam"), asked.take("Roles")
    name = asked.take("InstanceProfileName", name)
    made = iam.create_instance_profile(InstanceProfileName=name, **asked.some("Path"))["InstanceProfile"]
    asked.none_left()
    _soon(iam.add_role_to_instance_profile, InstanceProfileName=name, RoleName=role)

    def remove() -> None:
        _soon(iam.remove_role_from_instance_profile, InstanceProfileName=name, RoleName=role)
        _soon(iam.delete_instance_profile, InstanceProfileName=name)

    return Made(name, {"Arn": made["Arn"]}, remove)


def _launch_template(clients: Clients, name: str, asked: Properties) -> Made:
    ec2 = clients("ec2")
    name, data = asked.take("LaunchTemplateName", name), asked.take("LaunchTemplateData")
    more = asked.some("TagSpecifications", "VersionDescription")
    asked.none_left()
    made = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data, **more)
    identity = made["LaunchTemplate"]["LaunchTemplateId"]
    numbers = dict.fromkeys(("LatestVersionNumber", "DefaultVersionNumber"), "1")
    told = {**numbers, "LaunchTemplateId": identity}
    return Made(identity, told, lambda: ec2.delete_launch_template(LaunchTemplateId=identity))


_NUMBERS = ("MinSize", "MaxSize", "DesiredCapacity")


def _group(clients: Clients, name: str, asked: Properties) -> Made:
    """The group, without instances: the loop in scaling.py launches them."""
    scaling = clients("autoscaling")
    name = asked.take("AutoScalingGroupName", name)
    sizes = {key: int(value) for key, value in asked.some(*_NUMBERS).items()}
    hooks = asked.take("LifecycleHookSpecificationList", [])
    tags = [
        {**tag, "ResourceId": name, "ResourceType": "auto-scaling-group"} for tag in asked.take("Tags", [])
    ]
    plain = asked.some(
        *("MixedInstancesPolicy", "LaunchTemplate", "CapacityRebalance", "HealthCheckType"),
        *("HealthCheckGracePeriod", "DefaultInstanceWarmup", "TerminationPolicies", "MaxInstanceLifetime"),
        *("InstanceMaintenancePolicy", "NewInstancesProtectedFromScaleIn"),
    )
    asked.take("MetricsCollection", None)  # of CloudWatch, which is not here
    subnets = ",".join(asked.take("VPCZoneIdentifier"))
    asked.none_left()
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name, VPCZoneIdentifier=subnets, Tags=tags, **sizes, **plain
    )
    for hook in hooks:
        scaling.put_lifecycle_hook(AutoScalingGroupName=name, **hook)
    return Made(name, remove=lambda: scaling.delete_auto_scaling_group(AutoScalingGroupName=name))


def _hook(clients: Clients, name: str, asked: Properties) -> Made:
    scaling = clients("autoscaling")
    group, name = asked.take("AutoScalingGroupName"), asked.take("LifecycleHookName", name)
    more = asked.some("LifecycleTransition", "HeartbeatTimeout", "DefaultResult")
    asked.none_left()
    scaling.put_lifecycle_hook(AutoScalingGroupName=group, LifecycleHookName=name, **more)
    return Made(name)


MAKERS: Mapping[str, Callable[[Clients, str, Properties], Made]] = {
    "AWS::AutoScaling::AutoScalingGroup": _group,
    "AWS::AutoScaling::LifecycleHook": _hook,
    "AWS::EC2::LaunchTemplate": _launch_template,
    "AWS::Events::EventBus": _bus,
    "AWS::IAM::InstanceProfile": _profile,
    "AWS::IAM::Role": _role,
    "AWS::S3::Bucket": _bucket,
    "AWS::S3::BucketPolicy": _bucket_policy,
    "AWS::SQS::Queue": _queue,
    "AWS::SQS::QueuePolicy": _queue_policy,
}
# What the local cloud has not got, and the loop in scaling.py reads, with the ARN that Fn::GetAtt gives.
READ: Mapping[str, str] = {
    "AWS::AutoScaling::ScalingPolicy": "",
    "AWS::CloudWatch::Alarm": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{name}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::Lambda::Permission": "",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
}
