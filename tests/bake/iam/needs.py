"""What bakes, promotions, sweeps and prunes need of IAM: the ledger, and what only the code tells."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bake.iam import Audience
from bake.localcloud.api.access.needs import Context, Need
from tests.bake.iam import profiles
from tests.bake.iam.profiles import ENCRYPTED, FULL, KEY, PLAIN, ROLE

LEDGER = Path(__file__).with_name("needs.jsonl")
PATHS = {"green", "everything", "refused", "interrupted", "swept"}
IN_EC2, IN_WORKERS = {"aws:RequestedRegion": ("eu-north-1",)}, {"aws:RequestedRegion": ("eu-west-1",)}
EC2 = "arn:aws:ec2:eu-north-1:123456789012"
OURS = {"aws:ResourceTag/bake:profile": (PLAIN,), "aws:ResourceTag/bake:run": ("20260101-000000-0a1b2c",)}


@dataclass(frozen=True)
class Line:
    """A need, who had it, and for which profile."""

    audience: Audience
    profile: str
    need: Need
    path: str

    @property
    def id(self) -> str:
        return f"{self.audience}-{self.profile or 'any'}-{self.need.action}"


def recorded() -> Iterator[Line]:
    for text in LEDGER.read_text(encoding="utf-8").splitlines():
        raw = json.loads(text)
        context = {key: tuple(values) for key, values in raw["context"].items()}
        need = Need(raw["action"], raw["resource"], context)
        yield Line(raw["for"], raw["profile"] or FULL, need, raw["path"])


def _line(
    profile: str, action: str, resource: str, context: Context = IN_EC2, audience: Any = "caller"
) -> Line:
    return Line(audience, profile, Need(action, resource, context), "by the code")


NOTICES = f"arn:aws:events:eu-west-1:123456789012:event-bus/{profiles.BUS}"
FIRST_JOB = "arn:aws:{}:eu-west-1:123456789012:bake-20260101-000000-0a1b2c"
VIA = {**IN_EC2, "kms:ViaService": ("ec2.eu-north-1.amazonaws.com",)}
# What no rehearsal needs, by the calls in the code and the documentation of what AWS does with them.
BY_THE_CODE = (
    # bake/profile/secretsmanager.py; a rehearsal reads no secret.
    _line(
        ENCRYPTED,
        "secretsmanager:GetSecretValue",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:flux/hub-AbCdEf",
        IN_WORKERS,
    ),
    # bake/account/keys.py, and what EBS does with a key for whoever launches and images:
    # https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html
    _line(ENCRYPTED, "kms:DescribeKey", KEY),
    _line(ENCRYPTED, "kms:CreateGrant", KEY, {**VIA, "kms:GrantIsForAWSResource": ("true",)}),
    *(
        _line(ENCRYPTED, f"kms:{action}", KEY, VIA)
        for action in ("GenerateDataKeyWithoutPlaintext", "Decrypt", "ReEncryptFrom", "ReEncryptTo")
    ),
    # bake/account/keys.py: asked after the account turned out to encrypt by default.
    _line(FULL, "ec2:GetEbsDefaultKmsKeyId", "*"),
    # bake/steps/connect.py: of a machine that does not answer.
    _line(PLAIN, "ec2:GetConsoleOutput", f"{EC2}:instance/i-0123456789abcdef0", {**IN_EC2, **OURS}),
    # bake/account/routes.py and rights.py: what a plan asks before anything is created.
    _line(PLAIN, "ec2:DescribeRouteTables", "*"),
    _line(PLAIN, "ec2:DescribeVpcEndpoints", "*"),
    # bake/account/starts.py: of a profile that asks for a rate.
    _line(PLAIN, "ec2:DescribeFastSnapshotRestores", "*"),
    _line(PLAIN, "iam:SimulatePrincipalPolicy", ROLE, {}),
    _line(PLAIN, "iam:GetRole", "arn:aws:iam::123456789012:role/baker", {}),
    # bake/account/prices.py; the local cloud has no price list.
    _line(PLAIN, "pricing:GetProducts", "*", {"aws:RequestedRegion": ("us-east-1",)}),
    _line(PLAIN, "pricing:GetProducts", "*", {"aws:RequestedRegion": ("us-east-1",)}, "sweep"),
    # bake/account/serving_prices.py: a fleet of spot instances, whatever the market of the builder.
    _line(PLAIN, "ec2:DescribeSpotPriceHistory", "*"),
    # bake/weights/mirror.py: uploads that a killed bake left.
    _line(FULL, "s3:AbortMultipartUpload", f"arn:aws:s3:::{profiles.STORE}/weights/{'0' * 64}", IN_WORKERS),
    # bake/wiring.py: a queue of this name that is there; the expiry in the bucket's tags, moved by the lease.
    _line(PLAIN, "sqs:GetQueueUrl", f"{FIRST_JOB.format('sqs')}-jobs", IN_WORKERS),
    _line(PLAIN, "sqs:ListQueueTags", f"{FIRST_JOB.format('sqs')}-jobs", IN_WORKERS),
    _line(PLAIN, "s3:PutBucketTagging", "arn:aws:s3:::bake-20260101-000000-0a1b2c", IN_WORKERS),
    # bake/steps/take_over.py: what a resumed run removes of its earlier attempt.
    _line(PLAIN, "ec2:DeleteVolume", f"{EC2}:volume/vol-0123456789abcdef0", {**IN_EC2, **OURS}),
    _line(PLAIN, "ec2:DeleteNetworkInterface", f"{EC2}:network-interface/eni-0", {**IN_EC2, **OURS}),
    # bake/notices.py: what came of a run.
    _line(
        FULL,
        "events:PutEvents",
        NOTICES,
        IN_WORKERS,
    ),
    # worker/flux_worker/host/cloudwatch.py; the local cloud has no CloudWatch.
    _line(
        FULL,
        "cloudwatch:PutMetricData",
        "*",
        {**IN_EC2, "cloudwatch:namespace": (profiles.NAMESPACE,)},
        "worker",
    ),
    # worker/flux_worker/inference/streaming: no rehearsal's machine reads weights from S3.
    _line(FULL, "s3:GetObject", f"arn:aws:s3:::{profiles.STREAM}/flux/{'0' * 64}", IN_EC2, "worker"),
    # bake/steps/fill_stream.py: what the bucket lacks, by URLs that whoever bakes has signed.
    _line(FULL, "s3:PutObject", f"arn:aws:s3:::{profiles.STREAM}/flux/{'0' * 64}", IN_EC2),
    # bake/report/places.py: the report of an image that another machine baked.
    _line(FULL, "s3:GetObject", f"arn:aws:s3:::{profiles.STORE}/reports/object", IN_WORKERS),
    # bake/lifecycle/machines.py: a volume and a group that outlived their instance.
    _line(FULL, "ec2:DeleteVolume", f"{EC2}:volume/vol-0123456789abcdef0", {**IN_EC2, **OURS}, "sweep"),
    _line(FULL, "ec2:DeleteSecurityGroup", f"{EC2}:security-group/sg-0", {**IN_EC2, **OURS}, "sweep"),
    # The same: an AMI that somebody has protected although it is a draft.
    _line(
        FULL,
        "ec2:DisableImageDeregistrationProtection",
        "arn:aws:ec2:eu-north-1::image/ami-0",
        {**IN_EC2, **OURS},
        "sweep",
    ),
)
# bake/lifecycle/services.py: what a sweep does with a first job's queue, bucket, bus and rule.
_BUCKET = "arn:aws:s3:::bake-20260101-000000-0a1b2c"
_SWEPT = {
    f"{FIRST_JOB.format('sqs')}-jobs": ("sqs:ListQueueTags", "sqs:DeleteQueue"),
    _BUCKET: ("s3:GetBucketTagging", "s3:ListBucket", "s3:DeleteBucket"),
    f"{_BUCKET}/images/object": ("s3:DeleteObject",),
    "arn:aws:events:eu-west-1:123456789012:event-bus/bake-20260101-000000-0a1b2c": (
        *("events:DescribeEventBus", "events:ListTagsForResource", "events:DeleteEventBus"),
    ),
    "arn:aws:events:eu-west-1:123456789012:rule/bake-20260101-000000-0a1b2c/bake-20260101-000000-0a1b2c": (
        *("events:RemoveTargets", "events:DeleteRule"),
    ),
    "*": ("events:ListRules",),
}
SWEPT = tuple(
    _line(FULL, action, resource, IN_WORKERS, "sweep")
    for resource, actions in _SWEPT.items()
    for action in actions
)
# bake/publish/: what promotions, rollbacks, `bake channels` and revocations call;
# tests/bake/publish/test_channel_rights.py does all of it under this policy. DescribeImageReferences looks
# for parameters with the rights of whoever calls:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-ami-references.html
CHANNEL = f"arn:aws:ssm:eu-north-1:123456789012:parameter/bake/{FULL}/stable"
IMAGE = "arn:aws:ec2:eu-north-1::image/ami-0fedcba9876543210"
THEIRS = {f"aws:ResourceTag/bake:{key}": (value,) for key, value in (("profile", FULL), ("run", "r"))}
_SERVED: Mapping[str, tuple[str, ...]] = {
    "*": (
        *("ec2:DescribeImages", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeImageReferences"),
        *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations"),
        "ssm:DescribeParameters",
    ),
    CHANNEL: ("ssm:GetParameter", "ssm:GetParameterHistory", "ssm:PutParameter"),
    f"{CHANNEL}.lock": ("ssm:GetParameter", "ssm:PutParameter", "ssm:DeleteParameter"),
    "arn:aws:ssm:eu-north-1:123456789012:parameter/*": ("ssm:GetParameters",),
    f"{EC2}:launch-template/{profiles.TEMPLATE}": (
        *("ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate"),
    ),
}
PROMOTED = (
    _line(FULL, "events:PutEvents", NOTICES, IN_WORKERS, "promoter"),
    *(
        _line(FULL, action, resource, IN_EC2, "promoter")
        for resource, actions in _SERVED.items()
        for action in actions
    ),
    *(
        _line(FULL, action, IMAGE, {**IN_EC2, **THEIRS}, "promoter")
        for action in ("ec2:DisableImage", "ec2:DescribeImageAttribute")
    ),
    *(
        _line(
            FULL,
            "ec2:CreateTags",
            arn,
            {**IN_EC2, **THEIRS, "aws:TagKeys": ("bake:because", "bake:state")},
            "promoter",
        )
        for arn in (IMAGE, "arn:aws:ec2:eu-north-1::snapshot/snap-0fedcba9876543210")
    ),
)
# bake/rollout/: what `bake rollout` calls, and what Auto Scaling asks of whoever names a template:
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
# tests/bake/rollout/test_rights.py does all of it under this policy.
GROUP = (
    "arn:aws:autoscaling:eu-north-1:123456789012:autoScalingGroup:01234567-89ab-cdef-0123-456789abcdef"
    ":autoScalingGroupName/workers"
)
BY_TEMPLATE = {**IN_EC2, "ec2:LaunchTemplate": (f"{EC2}:launch-template/{profiles.TEMPLATE}",)}
_ROLLED: Mapping[str, tuple[str, ...]] = {
    "*": (
        *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeInstanceRefreshes"),
        *("ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions"),
    ),
    CHANNEL: ("ssm:GetParameter",),
    GROUP: tuple(f"autoscaling:{one}InstanceRefresh" for one in ("Start", "Cancel", "Rollback")),
}
ROLLED_OUT = (
    *(
        _line(FULL, action, resource, IN_EC2, "rollout")
        for resource, actions in _ROLLED.items()
        for action in actions
    ),
    *(
        _line(FULL, "ec2:RunInstances", resource, BY_TEMPLATE, "rollout")
        for resource in (
            *(f"{EC2}:{kind}/*" for kind in ("instance", "volume", "network-interface")),
            *(f"{EC2}:launch-template/{profiles.TEMPLATE}", f"{EC2}:subnet/subnet-0", IMAGE),
        )
    ),
    _line(
        FULL,
        "ec2:CreateTags",
        f"{EC2}:instance/*",
        {**IN_EC2, "aws:TagKeys": ("team",), "ec2:CreateAction": ("RunInstances",)},
        "rollout",
    ),
    _line(FULL, "iam:PassRole", ROLE, {"iam:PassedToService": ("ec2.amazonaws.com",)}, "rollout"),
)
# bake/lifecycle/references.py and sharing.py: a bake that keeps some images asks what whoever prunes asks.
_REFERRED = (
    *("DescribeImageReferences", "DescribeLaunchTemplates", "DescribeLaunchTemplateVersions"),
    *("DescribeSpotInstanceRequests", "DescribeSpotFleetRequests", "DescribeImageUsageReports"),
    "DescribeImageUsageReportEntries",
)
_OLD_IMAGE, _OLD_SNAPSHOT = "arn:aws:ec2:eu-north-1::image/ami-0", "arn:aws:ec2:eu-north-1::snapshot/snap-0"
ASKED = tuple(
    _line(FULL, action, resource, IN_EC2, audience)
    for audience in ("caller", "prune")
    for action, resource in (
        *((f"ec2:{action}", "*") for action in _REFERRED),
        ("autoscaling:DescribeAutoScalingGroups", "*"),
        ("autoscaling:DescribeLaunchConfigurations", "*"),
        ("ssm:DescribeParameters", "*"),
        ("ssm:GetParameters", "arn:aws:ssm:eu-north-1:123456789012:parameter/flux/stable"),
        ("ec2:CreateImageUsageReport", _OLD_IMAGE),
        ("ec2:CreateImageUsageReport", f"{EC2}:image-usage-report/*"),
    )
)
# tests/bake/lifecycle/test_prune_rights.py walks this path under the policy itself.
PRUNED = (
    *(
        _line(FULL, f"ec2:Describe{what}", "*", IN_EC2, "prune")
        for what in ("Images", "Instances", "Snapshots")
    ),
    _line(FULL, "pricing:GetProducts", "*", {"aws:RequestedRegion": ("us-east-1",)}, "prune"),
    *(
        _line(FULL, f"ec2:{action}", resource, {**IN_EC2, **OURS}, "prune")
        for action, resource in (
            ("DescribeImageAttribute", _OLD_IMAGE),
            ("DisableImageDeregistrationProtection", _OLD_IMAGE),
            ("DeregisterImage", _OLD_IMAGE),
            ("DeleteSnapshot", _OLD_SNAPSHOT),
        )
    ),
)
LINES = (*recorded(), *BY_THE_CODE, *SWEPT, *PROMOTED, *ROLLED_OUT, *ASKED, *PRUNED)
