"""Calls, and what each needs."""

from __future__ import annotations

from typing import Any

from .conftest import REGION

ACCOUNT = "123456789012"
EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}:"
SHARED = f"arn:aws:ec2:{REGION}::"
EVENTS = f"arn:aws:events:{REGION}:{ACCOUNT}:"
SCHEDULER = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:"
PARAMETER = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/golden"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bake-reaper"
TAGS = [{"Key": "bake:run", "Value": "r-1"}]


def tagged(*kinds: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": TAGS} for kind in kinds]


GIVEN = {"aws:RequestTag/bake:run": ["r-1"], "aws:TagKeys": ["bake:run"]}
CREATE = {
    operation: {**GIVEN, "ec2:CreateAction": [operation]}
    for operation in (
        "RunInstances",
        "CreateImage",
        "ImportKeyPair",
        "CreateSecurityGroup",
        "CreateImageUsageReport",
    )
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
        "describe_image_references",
        {"ImageIds": ["ami-1"], "IncludeAllResourceTypes": True},
        [
            ("ec2:DescribeImageReferences", "*", {}),
            ("ec2:DescribeInstances", "*", {}),
            ("ec2:DescribeLaunchTemplates", "*", {}),
            ("ec2:DescribeLaunchTemplateVersions", "*", {}),
            ("ssm:DescribeParameters", "*", {}),
            ("ssm:GetParameters", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/*", {}),
        ],
    ),
    (
        "ec2",
        "create_image_usage_report",
        {
            "ImageId": "ami-1",
            "ResourceTypes": [{"ResourceType": "ec2:Instance"}],
            "TagSpecifications": tagged("image-usage-report"),
        },
        [
            ("ec2:CreateImageUsageReport", f"{SHARED}image/ami-1", {}),
            ("ec2:CreateImageUsageReport", f"{EC2}image-usage-report/*", GIVEN),
            ("ec2:CreateTags", f"{EC2}image-usage-report/*", CREATE["CreateImageUsageReport"]),
        ],
    ),
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
    ("autoscaling", "describe_auto_scaling_groups", {}, [("autoscaling:DescribeAutoScalingGroups", "*", {})]),
    (
        "autoscaling",
        "describe_launch_configurations",
        {},
        [("autoscaling:DescribeLaunchConfigurations", "*", {})],
    ),
    (
        "autoscaling",
        "describe_auto_scaling_instances",
        {},
        [("autoscaling:DescribeAutoScalingInstances", "*", {})],
    ),
    (
        "autoscaling",
        "complete_lifecycle_action",
        {
            "AutoScalingGroupName": "none",
            "LifecycleHookName": "ready",
            "LifecycleActionResult": "CONTINUE",
            "InstanceId": "i-0123456789abcdef0",
        },
        [
            (
                "autoscaling:CompleteLifecycleAction",
                f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:*:autoScalingGroupName/none",
                {},
            )
        ],
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
