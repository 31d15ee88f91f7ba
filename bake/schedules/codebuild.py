"""A CloudFormation stack: EventBridge Scheduler starts a build of CodeBuild in the VPC, which bakes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bake import iam
from bake.errors import UsageError
from bake.schedules.definition import Definition, Scheduled, Variable, Written, outside
from bake.schedules.rendering import render

# https://docs.aws.amazon.com/codebuild/latest/userguide/limits.html
LONGEST = 36 * 60  # minutes of a build
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
BODY = 51_200  # bytes of a template that is not in a bucket
ACCOUNT, WORKER_ROLE = "${AWS::AccountId}", "${WorkerRoleArn}"
# As long as the values will be, to tell how long the policy is.
AN_ACCOUNT, A_ROLE = 12 * "0", f"arn:aws:iam::{12 * '0'}:role/{64 * 'r'}"
# CodeBuild sets these itself: a profile's go by another name, and are exported just before the bake.
SET_BY_CODEBUILD = ("AWS_REGION", "AWS_DEFAULT_REGION")


def write(definition: Definition) -> Written:
    """The stack's template. UsageError, with all of it at once, for what can't work."""
    if problems := list(_problems(definition)):
        raise UsageError("\n".join(problems), hint="write another kind with --as")
    text = render(
        "codebuild.yaml.j2",
        name=definition.name,
        cron=definition.cron,
        projects=[_project(one) for one in definition.profiles],
        parameters=[_parameter(one) for one in definition.variables],
        secrets=[logical(one.name) for one in definition.variables if one.secret],
        variables=[_variable(one) for one in definition.variables],
        reaper=_reaper(definition),
        directory=definition.directory,
    )
    file = Path(f"bake-{definition.name}-codebuild.yaml")
    large = len(text.encode()) > BODY
    return Written({file: text}, tuple(_next(definition, file, large=large)), tuple(_notes(definition)))


def logical(name: str) -> str:
    """A name as CloudFormation has it, without hyphens: g6e-ubuntu -> G6eUbuntu."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    return "".join(word[:1].upper() + (word[1:].lower() if name.isupper() else word[1:]) for word in words)


def substituted(value: Any) -> Any:
    """A value of JSON in which each text with `${…}` of CloudFormation is wrapped in Fn::Sub."""
    match value:
        case str():
            return {"Fn::Sub": value} if "${" in value else value
        case dict():
            return {key: substituted(one) for key, one in value.items()}
        case list() | tuple():
            return [substituted(one) for one in value]
    return value


def _project(one: Scheduled) -> dict[str, Any]:
    policy = substituted(_policy(one, ACCOUNT, WORKER_ROLE))
    return {"name": one.name, "id": logical(one.name), "minutes": one.minutes, "policy": policy}


def _policy(one: Scheduled, account: str, role: str) -> dict[str, Any]:
    """What a bake of the profile may do, as `bake iam` prints it."""
    partition = iam.partition_of(one.profile.builder.region)
    subject = iam.Subject.of(one.profile, account, partition=partition, role=role, secrets=one.secrets)
    return iam.document(iam.statements("caller", subject))


def _reaper(definition: Definition) -> dict[str, Any] | None:
    """The policies of `builder.reaper_role`, where a profile names one."""
    found = [one.profile for one in definition.profiles if one.profile.builder.reaper_role is not None]
    if not found:
        return None
    first = found[0]
    account = iam.Account(
        ACCOUNT,
        first.builder.region,
        first.worker.region,
        iam.partition_of(first.builder.region),
    )
    trust = iam.trust("schedule", account)
    assert trust is not None  # the Scheduler is the one that takes it
    policy = iam.document(iam.of_schedules(account))
    return {"trust": substituted(trust.as_dict()), "policy": substituted(policy)}


def _parameter(one: Variable) -> dict[str, Any]:
    """A parameter of the stack: what is known here is its default, but for a secret."""
    about = f"The value of {one.name} in the profiles"
    if one.secret:
        about = f"The ARN of the secret in Secrets Manager whose text is {one.name}"
    default = None if one.secret else one.value if one.value is not None else one.default
    return {"id": logical(one.name), "about": about, "default": default}


def _variable(one: Variable) -> dict[str, Any]:
    name = f"PROFILES_{one.name}" if one.name in SET_BY_CODEBUILD else one.name
    return {"name": name, "exported": one.name, "id": logical(one.name), "secret": one.secret}


def _problems(definition: Definition) -> Iterator[str]:
    if definition.rehearsal:
        yield "--rehearse: a rehearsal needs root and machines of its own, which CodeBuild doesn't give"
    if wrong := outside(definition.directory):
        yield wrong
    if definition.minutes > LONGEST:
        yield f"a bake may take {definition.minutes} min, and a build lasts 36 h at most"
    ids = [logical(one.name) for one in definition.profiles]
    if len(set(ids)) < len(ids):
        names = ", ".join(one.name for one in definition.profiles)
        yield f"in a stack these are the same names: {names}"
    for one in definition.profiles:
        if wrong := _too_large(one):
            yield f"{one.name}: {wrong}"
        if one.profile.builder.proxy_command is not None:
            yield (
                f"{one.name}: builder.proxy_command runs a program that CodeBuild's image may not have; "
                "a build in the VPC needs none: leave it out of the profile that is scheduled"
            )


def _too_large(one: Scheduled) -> str:
    found = iam.size(_policy(one, AN_ACCOUNT, A_ROLE))
    return f"the caller's policy has {found} characters, more than {iam.INLINE}" if found > iam.INLINE else ""


def _notes(definition: Definition) -> Iterable[str]:
    yield (
        "CodeBuild kills a build that is stopped or takes too long: what it created then ends with its lease "
        "(bake runs, docs/operations.md), and bake sweep removes it"
    )
    yield (
        "a time that the clock skips is left out, and one that it shows twice comes once; a build that would "
        "run beside another of its project does not start, and the schedule tries again for an hour"
    )
    if any(one.profile.builder.ssh_from is not None for one in definition.profiles):
        yield "builder.ssh_from must let in the subnets of the build"


def _next(definition: Definition, file: Path, *, large: bool) -> Iterator[str]:
    bucket = "--s3-bucket BUCKET " if large else ""  # for a template that is too large without
    yield (
        f"aws cloudformation deploy --template-file {file} --stack-name bake-{definition.name} "
        f"{bucket}--capabilities CAPABILITY_IAM --parameter-overrides …"
    )
    if definition.variables:
        yield f"its parameters: aws cloudformation validate-template --template-body file://{file}"
    yield "confirm the subscription to the topic, if you gave an address"
