"""The policies against what bakes need: `needs.jsonl`, recorded on all paths, and what only the code tells.

`python -m tests.rehearsal.needs` records it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bake import iam
from bake.iam import Audience, Statement
from bake.localcloud.api.access.evaluation import evaluate
from bake.localcloud.api.access.needs import Context, Need
from tests.bake.iam import needs_by_code, profiles
from tests.bake.iam.profiles import AGAIN, ENCRYPTED, FULL, KEY, PLAIN, REFUSED, ROLE, SPOT

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


FIRST_JOB = "arn:aws:{}:eu-west-1:123456789012:bake-20260101-000000-0a1b2c"
_VIA = {**IN_EC2, "kms:ViaService": ("ec2.eu-north-1.amazonaws.com",)}
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
    _line(ENCRYPTED, "kms:CreateGrant", KEY, {**_VIA, "kms:GrantIsForAWSResource": ("true",)}),
    *(
        _line(ENCRYPTED, f"kms:{action}", KEY, _VIA)
        for action in ("GenerateDataKeyWithoutPlaintext", "Decrypt", "ReEncryptFrom", "ReEncryptTo")
    ),
    # bake/account/keys.py: asked after the account turned out to encrypt by default.
    _line(FULL, "ec2:GetEbsDefaultKmsKeyId", "*"),
    # bake/steps/connect.py: of a machine that does not answer.
    _line(PLAIN, "ec2:GetConsoleOutput", f"{EC2}:instance/i-0123456789abcdef0", {**IN_EC2, **OURS}),
    # bake/account/routes.py and rights.py: what a plan asks before anything is created.
    _line(PLAIN, "ec2:DescribeRouteTables", "*"),
    _line(PLAIN, "ec2:DescribeVpcEndpoints", "*"),
    _line(PLAIN, "iam:SimulatePrincipalPolicy", ROLE, {}),
    _line(PLAIN, "iam:GetRole", "arn:aws:iam::123456789012:role/baker", {}),
    # bake/weights/mirror.py: uploads that a killed bake left.
    _line(FULL, "s3:AbortMultipartUpload", f"arn:aws:s3:::{profiles.STORE}/weights/{'0' * 64}", IN_WORKERS),
    # bake/wiring.py: a queue of this name that is there; the expiry in the bucket's tags, moved by the lease.
    _line(PLAIN, "sqs:GetQueueUrl", f"{FIRST_JOB.format('sqs')}-jobs", IN_WORKERS),
    _line(PLAIN, "sqs:ListQueueTags", f"{FIRST_JOB.format('sqs')}-jobs", IN_WORKERS),
    _line(PLAIN, "s3:PutBucketTagging", "arn:aws:s3:::bake-20260101-000000-0a1b2c", IN_WORKERS),
    # bake/steps/take_over.py: what a resumed run removes of its earlier attempt.
    _line(PLAIN, "ec2:DeleteVolume", f"{EC2}:volume/vol-0123456789abcdef0", {**IN_EC2, **OURS}),
    _line(PLAIN, "ec2:DeleteNetworkInterface", f"{EC2}:network-interface/eni-0", {**IN_EC2, **OURS}),
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
_CHANNEL = f"arn:aws:ssm:eu-north-1:123456789012:parameter/bake/{FULL}/stable"
_IMAGE = "arn:aws:ec2:eu-north-1::image/ami-0fedcba9876543210"
_THEIRS = {f"aws:ResourceTag/bake:{key}": (value,) for key, value in (("profile", FULL), ("run", "r"))}
_SERVED: Mapping[str, tuple[str, ...]] = {
    "*": (
        *("ec2:DescribeImages", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeImageReferences"),
        *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations"),
        "ssm:DescribeParameters",
    ),
    _CHANNEL: ("ssm:GetParameter", "ssm:GetParameterHistory", "ssm:PutParameter"),
    f"{_CHANNEL}.lock": ("ssm:GetParameter", "ssm:PutParameter", "ssm:DeleteParameter"),
    "arn:aws:ssm:eu-north-1:123456789012:parameter/*": ("ssm:GetParameters",),
    f"{EC2}:launch-template/{profiles.TEMPLATE}": (
        *("ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate"),
    ),
}
PROMOTED = (
    *(
        _line(FULL, action, resource, IN_EC2, "promoter")
        for resource, actions in _SERVED.items()
        for action in actions
    ),
    *(
        _line(FULL, action, _IMAGE, {**IN_EC2, **_THEIRS}, "promoter")
        for action in ("ec2:DisableImage", "ec2:DescribeImageAttribute")
    ),
    *(
        _line(
            FULL,
            "ec2:CreateTags",
            arn,
            {**IN_EC2, **_THEIRS, "aws:TagKeys": ("bake:because", "bake:state")},
            "promoter",
        )
        for arn in (_IMAGE, "arn:aws:ec2:eu-north-1::snapshot/snap-0fedcba9876543210")
    ),
)
# Prices, notices, and what retention asks and removes.
MORE = tuple(
    _line(FULL, action, resource, {**context, **(OURS if tagged else {})}, audience)
    for audience, action, resource, context, tagged in needs_by_code.ALL
)
# What is granted and used by nothing here, with the reason.
UNUSED: Mapping[tuple[Audience, str], str] = {
    ("worker", "autoscaling:DescribeAutoScalingInstances"): "instances of rehearsals are in no group",
    ("worker", "autoscaling:DescribeLifecycleHooks"): "so no lifecycle hook waits for them",
    ("worker", "autoscaling:CompleteLifecycleAction"): "nor is one completed",
    ("caller", "scheduler:DeleteSchedule"): "the Service Authorization Reference has it for deleting a group",
    ("sweep", "scheduler:DeleteSchedule"): "the Service Authorization Reference has it for deleting a group",
}

Policies = Mapping[tuple[Audience, str], tuple[Statement, ...]]
LINES = (*recorded(), *BY_THE_CODE, *SWEPT, *PROMOTED, *MORE)


@pytest.fixture(scope="module")
def policies(
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[tuple[Audience, str], tuple[Statement, ...]]:
    """The statements of all policies of all profiles that were recorded."""
    folder = profiles.write(tmp_path_factory.mktemp("of-iam") / "profiles")
    found = {name: profiles.subject(name, folder) for name in (PLAIN, *profiles.TEXTS)}
    subjects = {name: _rehearsed(one) for name, one in found.items()}
    return {
        (audience, name): iam.statements(audience, subject)
        for name, subject in subjects.items()
        for audience in iam.AUDIENCES
    }


def _rehearsed(subject: iam.Subject) -> iam.Subject:
    """With what rehearsals do unless the profile says otherwise: attest (bake/rehearsal.py)."""
    return replace(subject, profile=subject.profile.model_copy(update={"attest": True}))


def allowed(statements: tuple[Statement, ...], need: Need) -> bool:
    return evaluate([iam.document(statements)], need).allowed


def denied(policies: Policies, line: Line) -> bool:
    return not allowed(policies[line.audience, line.profile], line.need)


def test_each_path_was_recorded() -> None:
    assert {line.path for line in recorded()} == PATHS
    assert {line.audience for line in recorded()} == set(iam.AUDIENCES) - {"promoter", "prune"}
    assert {line.profile for line in recorded() if line.audience == "caller"} == {
        PLAIN,
        FULL,
        AGAIN,
        SPOT,
        REFUSED,
    }
    assert len(LINES) > 250


def test_whatever_is_needed_is_allowed(policies: Policies) -> None:
    assert [line for line in LINES if denied(policies, line)] == []


def test_whatever_is_allowed_is_needed_or_named(policies: Policies) -> None:
    for audience in iam.AUDIENCES:
        names = [name for kind, name in policies if kind == audience]
        granted = {one for name in names for each in policies[audience, name] for one in each.actions}
        used = {line.need.action for line in LINES if line.audience == audience}
        unused = {action for kind, action in UNUSED if kind == audience}
        assert granted - used == unused, audience


def test_without_any_of_its_actions_a_statement_lacks_something(policies: Policies) -> None:
    """Each action of each statement, of the policy that has most."""
    for audience in iam.AUDIENCES:
        for sid, action in sorted(_grants(policies, audience)):
            if (audience, action) in UNUSED:
                continue
            assert any(
                not allowed(_without(policies[line.audience, line.profile], sid, action), line.need)
                for line in LINES
                if line.audience == audience and line.need.action == action
            ), f"{audience}: {sid} allows {action}, and nothing needs it there"


def _grants(policies: Policies, audience: Audience) -> set[tuple[str, str]]:
    return {
        (statement.sid, action)
        for (kind, _), statements in policies.items()
        if kind == audience
        for statement in statements
        for action in statement.actions
    }


def _without(statements: tuple[Statement, ...], sid: str, action: str) -> tuple[Statement, ...]:
    kept = (
        replace(one, actions=tuple(each for each in one.actions if each != action)) if one.sid == sid else one
        for one in statements
    )
    return tuple(one for one in kept if one.actions)


def test_each_condition_bites(policies: Policies) -> None:
    """Whatever a statement asks of a need: without it, or with another value, nothing else allows it."""
    tried = set()
    for line in LINES:
        statements = policies[line.audience, line.profile]
        grants = [one for one in statements if allowed((one,), line.need)]
        for statement in grants if len(grants) == 1 else ():
            for operator, keys in (statement.condition or {}).items():
                for key in keys:
                    tried.add((line.audience, statement.sid, operator, key))
                    for changed in _changed(line.need, operator, key):
                        assert not allowed(statements, changed), (line.id, key, changed)
    asked = {
        (audience, statement.sid, operator, key)
        for (audience, _), statements in policies.items()
        for statement in statements
        for operator, keys in (statement.condition or {}).items()
        for key in keys
    }
    assert asked - tried == set()


def _changed(need: Need, operator: str, key: str) -> Iterator[Need]:
    """A need without a condition key, and with another value of it; any value does for Null."""
    others = {one: values for one, values in need.context.items() if one != key}
    yield replace(need, context=others)
    if operator != "Null":
        yield replace(need, context={**others, key: ("" if key.endswith("/bake:run") else "another",)})


OTHER = "arn:aws:ec2:eu-north-1:210987654321"
IAM = "arn:aws:iam::123456789012"
EVENTS = "arn:aws:events:eu-west-1:123456789012"
LAUNCH = {**IN_EC2, **OURS}
NEW = {key.replace("Resource", "Request"): value for key, value in OURS.items()}
FOREIGN = {
    "another role for EC2": ("iam:PassRole", f"{ROLE}-2", {"iam:PassedToService": ("ec2.amazonaws.com",)}),
    "the worker's role for another service": (
        "iam:PassRole",
        ROLE,
        {"iam:PassedToService": ("lambda.amazonaws.com",)},
    ),
    "another subnet": ("ec2:RunInstances", f"{EC2}:subnet/subnet-00000000", IN_EC2),
    "another security group": ("ec2:RunInstances", f"{EC2}:security-group/sg-00000000", IN_EC2),
    "another AMI": ("ec2:RunInstances", "arn:aws:ec2:eu-north-1::image/ami-00000000", IN_EC2),
    "somebody's key pair": ("ec2:RunInstances", f"{EC2}:key-pair/mine", IN_EC2),
    "an instance without tags": ("ec2:RunInstances", f"{EC2}:instance/*", IN_EC2),
    "a launch in another region": ("ec2:RunInstances", "arn:aws:ec2:us-east-1:123456789012:instance/*", NEW),
    "the end of somebody's instance": ("ec2:TerminateInstances", f"{EC2}:instance/i-00000000", IN_EC2),
    "the end of another account's": (
        "ec2:TerminateInstances",
        "arn:aws:ec2:eu-north-1:210987654321:instance/i-0",
        LAUNCH,
    ),
    "a run's tag on somebody's instance": (
        "ec2:CreateTags",
        f"{EC2}:instance/i-00000000",
        {**NEW, "aws:TagKeys": ("bake:profile", "bake:run")},
    ),
    "another run's tag on one's own": (
        "ec2:CreateTags",
        f"{EC2}:instance/i-00000000",
        {**LAUNCH, **NEW, "aws:TagKeys": ("bake:run",)},
    ),
    "all tags of one's own": ("ec2:DeleteTags", f"{EC2}:instance/i-00000000", LAUNCH),
    "somebody's queue": ("sqs:DeleteQueue", "arn:aws:sqs:eu-west-1:123456789012:jobs", IN_WORKERS),
    "a queue without tags": ("sqs:CreateQueue", "arn:aws:sqs:eu-west-1:123456789012:bake-jobs", IN_WORKERS),
    "somebody's bucket": ("s3:DeleteBucket", "arn:aws:s3:::pictures", IN_WORKERS),
    "a rule on the default bus": (
        "events:DeleteRule",
        f"{EVENTS}:rule/nightly",
        IN_WORKERS,
    ),
    "another instance profile": (
        "iam:GetInstanceProfile",
        f"{IAM}:instance-profile/x",
        {},
    ),
    "a right of nobody's": ("iam:CreateRole", f"{IAM}:role/x", {}),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_the_profiles_is_denied(policies: Policies, what: str) -> None:
    action, resource, context = FOREIGN[what]
    assert not allowed(policies["caller", PLAIN], Need(action, resource, context))


def test_another_profiles_builder_is_denied_and_swept(policies: Policies) -> None:
    theirs = {**IN_EC2, "aws:ResourceTag/bake:profile": (SPOT,), "aws:ResourceTag/bake:run": ("r",)}
    need = Need("ec2:TerminateInstances", f"{EC2}:instance/i-00000000", theirs)
    assert not allowed(policies["caller", PLAIN], need)
    assert allowed(policies["caller", SPOT], need)
    assert allowed(policies["sweep", PLAIN], need)
    assert not allowed(policies["sweep", PLAIN], replace(need, context=IN_EC2))


def test_a_schedule_ends_no_instance_but_a_bakes(policies: Policies) -> None:
    need = Need("ec2:TerminateInstances", f"{EC2}:instance/i-00000000", {**IN_EC2, **OURS})
    assert allowed(policies["schedule", FULL], need)
    assert not allowed(policies["schedule", FULL], replace(need, context=IN_EC2))


def test_a_key_is_used_by_ec2_and_by_nobody_else(policies: Policies) -> None:
    assert allowed(policies["caller", ENCRYPTED], Need("kms:Decrypt", KEY, _VIA))
    assert not allowed(policies["caller", ENCRYPTED], Need("kms:Decrypt", KEY, IN_EC2))
    assert not allowed(policies["caller", ENCRYPTED], Need("kms:CreateGrant", KEY, _VIA))


FOREIGN_TO_PROMOTERS = {
    "somebody's parameter": ("ssm:PutParameter", f"{_CHANNEL}-2", IN_EC2),
    "a channel's end": ("ssm:DeleteParameter", _CHANNEL, IN_EC2),
    "somebody's template": ("ec2:ModifyLaunchTemplate", f"{EC2}:launch-template/lt-00000000", IN_EC2),
    "somebody's image": ("ec2:DisableImage", _IMAGE, IN_EC2),
    "a tag of whose it is": ("ec2:CreateTags", _IMAGE, {**IN_EC2, **_THEIRS, "aws:TagKeys": ("bake:run",)}),
    "an image's end": ("ec2:DeregisterImage", _IMAGE, {**IN_EC2, **_THEIRS}),
    "a launch": ("ec2:RunInstances", f"{EC2}:instance/*", IN_EC2),
}


@pytest.mark.parametrize("what", FOREIGN_TO_PROMOTERS)
def test_whoever_promotes_may_do_nothing_else(policies: Policies, what: str) -> None:
    action, resource, context = FOREIGN_TO_PROMOTERS[what]
    assert not allowed(policies["promoter", FULL], Need(action, resource, context))


def test_without_channels_there_is_nothing_to_serve(policies: Policies) -> None:
    granted = {action for one in policies["promoter", PLAIN] for action in one.actions}
    assert not granted & {"ssm:PutParameter", "ssm:DeleteParameter", "ec2:ModifyLaunchTemplate"}
