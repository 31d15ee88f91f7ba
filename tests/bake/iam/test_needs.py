"""The policies against what bakes need: `needs.jsonl`, recorded on all paths, and what only the code tells.

`python -m tests.rehearsal.needs` records it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bake import iam
from bake.iam import Audience, Statement
from bake.localcloud.api.access.evaluation import evaluate
from bake.localcloud.api.access.needs import Need
from tests.bake.iam import profiles
from tests.bake.iam.needs import (
    CHANNEL,
    EC2,
    GROUP,
    IMAGE,
    IN_EC2,
    IN_WORKERS,
    LINES,
    OURS,
    PATHS,
    THEIRS,
    VIA,
    Line,
    recorded,
)
from tests.bake.iam.profiles import AGAIN, ENCRYPTED, FULL, KEY, PLAIN, REFUSED, ROLE, SPOT

# What is granted and used by nothing here, with the reason.
UNUSED: Mapping[tuple[Audience, str], str] = {
    ("worker", "autoscaling:DescribeAutoScalingInstances"): "instances of rehearsals are in no group",
    ("worker", "autoscaling:DescribeLifecycleHooks"): "so no lifecycle hook waits for them",
    ("worker", "autoscaling:CompleteLifecycleAction"): "nor is one completed",
    ("caller", "scheduler:DeleteSchedule"): "the Service Authorization Reference has it for deleting a group",
    ("sweep", "scheduler:DeleteSchedule"): "the Service Authorization Reference has it for deleting a group",
}

Policies = Mapping[tuple[Audience, str], tuple[Statement, ...]]


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
    assert {line.audience for line in recorded()} == set(iam.AUDIENCES) - {"promoter", "rollout", "prune"}
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
    assert allowed(policies["caller", ENCRYPTED], Need("kms:Decrypt", KEY, VIA))
    assert not allowed(policies["caller", ENCRYPTED], Need("kms:Decrypt", KEY, IN_EC2))
    assert not allowed(policies["caller", ENCRYPTED], Need("kms:CreateGrant", KEY, VIA))


FOREIGN_TO_PROMOTERS = {
    "somebody's parameter": ("ssm:PutParameter", f"{CHANNEL}-2", IN_EC2),
    "a channel's end": ("ssm:DeleteParameter", CHANNEL, IN_EC2),
    "somebody's template": ("ec2:ModifyLaunchTemplate", f"{EC2}:launch-template/lt-00000000", IN_EC2),
    "somebody's image": ("ec2:DisableImage", IMAGE, IN_EC2),
    "a tag of whose it is": ("ec2:CreateTags", IMAGE, {**IN_EC2, **THEIRS, "aws:TagKeys": ("bake:run",)}),
    "an image's end": ("ec2:DeregisterImage", IMAGE, {**IN_EC2, **THEIRS}),
    "a launch": ("ec2:RunInstances", f"{EC2}:instance/*", IN_EC2),
}


@pytest.mark.parametrize("what", FOREIGN_TO_PROMOTERS)
def test_whoever_promotes_may_do_nothing_else(policies: Policies, what: str) -> None:
    action, resource, context = FOREIGN_TO_PROMOTERS[what]
    assert not allowed(policies["promoter", FULL], Need(action, resource, context))


FOREIGN_TO_ROLLOUTS = {
    "a launch by somebody's template": (
        "ec2:RunInstances",
        f"{EC2}:instance/*",
        {**IN_EC2, "ec2:LaunchTemplate": (f"{EC2}:launch-template/lt-00000000",)},
    ),
    "a launch without a template": ("ec2:RunInstances", f"{EC2}:instance/*", IN_EC2),
    "a tag of what is there": ("ec2:CreateTags", f"{EC2}:instance/i-00000000", IN_EC2),
    "another role": ("iam:PassRole", f"{ROLE}-2", {"iam:PassedToService": ("ec2.amazonaws.com",)}),
    "a group's end": ("autoscaling:DeleteAutoScalingGroup", GROUP, IN_EC2),
    "a group's size": ("autoscaling:UpdateAutoScalingGroup", GROUP, IN_EC2),
    "what a channel serves": ("ssm:PutParameter", CHANNEL, IN_EC2),
    "a template's default": (
        "ec2:ModifyLaunchTemplate",
        f"{EC2}:launch-template/{profiles.TEMPLATE}",
        IN_EC2,
    ),
}


@pytest.mark.parametrize("what", FOREIGN_TO_ROLLOUTS)
def test_whoever_rolls_out_may_do_nothing_else(policies: Policies, what: str) -> None:
    action, resource, context = FOREIGN_TO_ROLLOUTS[what]
    assert not allowed(policies["rollout", FULL], Need(action, resource, context))


def test_a_rollout_can_be_limited_to_one_group(tmp_path: Path) -> None:
    subject = replace(profiles.subject(FULL, profiles.write(tmp_path / "profiles")), groups=("workers",))
    statements = iam.statements("rollout", subject)
    need = Need("autoscaling:StartInstanceRefresh", GROUP, IN_EC2)
    assert allowed(statements, need)
    assert not allowed(statements, replace(need, resource=f"{GROUP}-2"))


def test_without_channels_there_is_nothing_to_serve(policies: Policies) -> None:
    granted = {action for one in policies["promoter", PLAIN] for action in one.actions}
    assert not granted & {"ssm:PutParameter", "ssm:DeleteParameter", "ec2:ModifyLaunchTemplate"}
