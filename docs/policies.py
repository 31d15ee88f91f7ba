"""The tables of docs/reference.md about the policies of `bake iam`: what each statement is for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from bake import iam, profile
from bake.iam import Statement, Subject
from bake.profile.channels import Channel
from bake.profile.publishing import Publish

ROOT = Path(__file__).parents[1]
INTRODUCTION = """\
## Statements of the policies

What `bake iam` prints, by the `Sid` of each statement, for all that a profile may want;
[aws.md](aws.md#rights) explains it. Actions in parentheses, and statements "only with" something, follow the
profile.
"""
TITLES = {
    "caller": "Whoever bakes",
    "worker": "The worker",
    "schedule": "The reaper's schedules",
    "sweep": "Whoever sweeps",
    "promoter": "Whoever promotes",
    "prune": "Whoever prunes",
}
VARIABLES = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    "BASE_AMI_ID": "ami-0123456789abcdef0",
    "BAKE_SUBNET_ID": "subnet-0123456789abcdef0",
    "BAKE_SECURITY_GROUP_ID": "sg-0123456789abcdef0",
    "BAKE_INSTANCE_PROFILE": "flux-worker",
    "HF_TOKEN": "example",
    "FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/flux-jobs",
    "FLUX_BUCKET": "pictures-123456789012",
    "FLUX_EVENT_BUS": "flux",
    "FLUX_MIRROR": "s3://weights-123456789012/flux",
    "BAKE_REPORTS": "s3://reports-123456789012/flux",
    "BAKE_NOTICES": "notices",
}
SHARED: dict[str, Any] = {"share_with": ("210987654321",)}
PUBLISH = Publish(
    regions=("eu-west-1",),
    kms_keys=("arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",),
    parameter="/flux/ami",
    launch_template="lt-0123456789abcdef0",
    deprecate_after=timedelta(days=180),
    protect=True,
    watermark="verified",
    enforce_instance_types=True,
)
REAPER = "arn:aws:iam::123456789012:role/bake-reaper"


def samples() -> tuple[Subject, Subject, Subject]:
    """A usual profile in an account, one that wants all statements, and one that wants what that can't."""
    usual = profile.load("g6e-ubuntu", ROOT / "profiles", VARIABLES)
    everything = _changed(
        usual,
        base={"ami": None, "ssm": "/bake/base"},
        builder={
            "market": "spot",
            "security_group": "temporary",
            "ssh_from": "192.0.2.0/24",
            "reaper": "scheduler",
            "reaper_role": REAPER,
        },
        root_volume={"kms_key": "alias/bake"},
        worker={"cloudwatch_namespace": "Flux"},
        image={**SHARED, "keep": 3},
    ).model_copy(
        update={
            "reports": VARIABLES["BAKE_REPORTS"],
            "notices": VARIABLES["BAKE_NOTICES"],
            "publish": PUBLISH,
            "channels": {"stable": Channel(launch_template="lt-0123456789abcdef0")},
        }
    )
    shared = _changed(usual, image=SHARED)
    return _subject(usual), _subject(everything, secrets=("flux/hub",)), _subject(shared)


def _changed(found: Any, **sections: dict[str, Any]) -> Any:
    given = {name: getattr(found, name).model_copy(update=values) for name, values in sections.items()}
    return found.model_copy(update=given)


def _subject(found: Any, **known: Any) -> Subject:
    return Subject.of(found, "123456789012", role="arn:aws:iam::123456789012:role/flux-worker", **known)


def tables() -> Iterator[str]:
    """A table for each policy."""
    yield INTRODUCTION
    for audience in iam.AUDIENCES:
        yield f"### {TITLES[audience]}: --for {audience}\n"
        yield "| statement | what for | actions |\n|---|---|---|"
        usual, *more = [{one.sid: one for one in iam.statements(audience, each)} for each in samples()]
        for sid, statement in more[0].items():
            found = [policy[sid] for policy in (usual, *more) if sid in policy]
            yield f"| `{sid}` | {_reason(statement)} | {_actions(found)} |"
        yield ""


def _reason(statement: Statement) -> str:
    return f"{statement.why}; only with {statement.when}" if statement.when else statement.why


def _actions(found: list[Statement]) -> str:
    """All actions of a statement; in parentheses those that not every profile gets."""
    every = dict.fromkeys(action for statement in found for action in statement.actions)
    return ", ".join(f"`{one}`" if one in found[0].actions else f"(`{one}`)" for one in every)
