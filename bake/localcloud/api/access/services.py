"""The services and operations that the local cloud supports; all others are refused.

moto has some two hundred services and answers for all of them; several make the process that answers, root's
here, connect to where the caller says, or start programs. So there are those that bakes, workers, Packer and
Ansible need, and of a service that can reach others only what stays within the local cloud.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from bake.localcloud.api.access.refusals import Refused
from bake.localcloud.api.faults import operations

# By signing name: moto's name of the service, and patterns of the supported operations.
# `bake.localcloud.api.endpoint` limits EC2 and S3 further.
_TAGS = ("TagResource", "UntagResource", "ListTagsForResource", "ListResourceTags")
SERVICES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ec2": ("ec2", ("*",)),
    "s3": ("s3", ("*",)),
    "sqs": ("sqs", ("*",)),
    "events": (
        "events",
        (
            *("CreateEventBus", "DescribeEventBus", "UpdateEventBus", "DeleteEventBus", "ListEventBuses"),
            *("PutRule", "DescribeRule", "EnableRule", "DisableRule", "DeleteRule", "ListRules"),
            *("PutTargets", "RemoveTargets", "ListTargetsByRule", "ListRuleNamesByTarget"),
            *("PutEvents", "TestEventPattern", "PutPermission", "RemovePermission"),
            *_TAGS,
        ),
    ),
    # The cloud accepts no credentials but the owner's and the instances', so STS issues none.
    "sts": ("sts", ("GetCallerIdentity",)),
    "iam": ("iam", ("*Role*", "*InstanceProfile*", "*Polic*", "GetUser", "ListUsers", "ListAccountAliases")),
    "kms": ("kms", ("*",)),
    "ssm": (
        "ssm",
        (
            *("GetParameter", "GetParameters", "GetParametersByPath", "GetParameterHistory", "PutParameter"),
            *("DeleteParameter", "DeleteParameters", "DescribeParameters", "LabelParameterVersion"),
            *("AddTagsToResource", "RemoveTagsFromResource", "ListTagsForResource"),
        ),
    ),
    "secretsmanager": (
        "secretsmanager",
        (
            *("CreateSecret", "GetSecretValue", "BatchGetSecretValue", "DescribeSecret", "ListSecrets"),
            *("PutSecretValue", "UpdateSecret", "UpdateSecretVersionStage", "ListSecretVersionIds"),
            *("DeleteSecret", "RestoreSecret", "GetRandomPassword", *_TAGS),
            *("PutResourcePolicy", "GetResourcePolicy", "DeleteResourcePolicy"),
        ),
    ),
    # `bake.localcloud.api.scheduler` limits what a schedule may do.
    "scheduler": ("scheduler", ("*Schedule*", *_TAGS)),
    "servicequotas": ("servicequotas", ("Get*", "List*")),
    # `bake.localcloud.api.auto_scaling` has groups without instances.
    "autoscaling": (
        "autoscaling",
        (
            *("CreateAutoScalingGroup", "DescribeAutoScalingGroups", "UpdateAutoScalingGroup"),
            *("DeleteAutoScalingGroup", "SetDesiredCapacity", "CreateLaunchConfiguration"),
            *("DescribeLaunchConfigurations", "DeleteLaunchConfiguration"),
            *("CreateOrUpdateTags", "DeleteTags", "DescribeTags", "SuspendProcesses", "ResumeProcesses"),
            *("StartInstanceRefresh", "DescribeInstanceRefreshes"),
            *("CancelInstanceRefresh", "RollbackInstanceRefresh"),
            *("PutLifecycleHook", "DescribeLifecycleHooks", "DeleteLifecycleHook"),
            # `bake.localcloud.api.lifecycle_states` knows of instances what it is told.
            *("DescribeAutoScalingInstances", "CompleteLifecycleAction"),
        ),
    ),
    # Answered by `bake.localcloud.api.direct`: moto's knows no disks.
    "ebs": ("", ("ListSnapshotBlocks", "ListChangedBlocks", "GetSnapshotBlock")),
    # Answered by `bake.localcloud.api.tables`; moto has no prices.
    "pricing": ("", ("GetProducts",)),
}
# Matched by these patterns, but not supported: they would act elsewhere, or have no effect.
_EXCEPT: Mapping[str, tuple[str, ...]] = {
    "s3": ("PutBucketNotification*", "PutBucketReplication", "WriteGetObjectResponse"),
    "iam": ("*SAML*", "*OpenID*", "CreateServiceLinkedRole"),
}
# The first part of X-Amz-Target, which names a JSON service.
TARGETS: Mapping[str, str] = {
    "AmazonSQS": "sqs",
    "AWSEvents": "events",
    "TrentService": "kms",
    "AmazonSSM": "ssm",
    "secretsmanager": "secretsmanager",
    "ServiceQuotasV20190624": "servicequotas",
    "AWSPriceListService": "pricing",
}
# The parameter Version of the query protocol.
VERSIONS: Mapping[str, str] = {
    "2016-11-15": "ec2",
    "2012-11-05": "sqs",
    "2011-06-15": "sts",
    "2010-05-08": "iam",
    "2011-01-01": "autoscaling",
}


def check_service(service: str) -> None:
    """Raise Refused unless the local cloud supports the service, given by its signing name."""
    if service not in SERVICES:
        raise Refused("lacking", f"the service {service}; it has {', '.join(sorted(SERVICES))}")


def check_operation(service: str, operation: str) -> None:
    """Raise Refused unless the local cloud supports this operation of a supported service."""
    _, patterns = SERVICES[service]
    there = operation in operations.names(service)
    there = there and any(fnmatch.fnmatchcase(operation, pattern) for pattern in patterns)
    if not there or any(fnmatch.fnmatchcase(operation, one) for one in _EXCEPT.get(service, ())):
        raise Refused("lacking", f"{service} {operation[:80] or 'without an operation'}")


def check_content(service: str, operation: str, content: Mapping[str, Any]) -> None:
    """Raise Refused if an event rule would deliver to anything but a queue."""
    if (service, operation) != ("events", "PutTargets"):
        return
    targets = content.get("Targets")
    for target in targets if isinstance(targets, list) else []:
        arn = target.get("Arn") if isinstance(target, dict) else None
        if not isinstance(arn, str) or not arn.startswith("arn:aws:sqs:"):
            raise Refused("lacking", f"a rule's target other than a queue: {str(arn)[:200]}")
