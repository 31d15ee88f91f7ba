"""`bake iam`: the least-privilege policy of whoever bakes, the worker, the reaper, sweeps or prunes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import say
from bake.commands.serving import account_id as _account
from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.aws import Aws
    from bake.iam import Audience, Subject
    from bake.profile import Profile

ROLE = re.compile(r"(arn:[a-z-]+:iam::\d{12}:role/)?[\w+=,.@/-]{1,512}", re.ASCII)
STORED = "secretsmanager:"
# Variables that stand in no policy; an example is as good.
NOWHERE = ("HF_TOKEN", "NEURON_PYTHON_INDEX")
# What a rollout hands over to instances, and launches by.
IN_ROLLOUTS = ("BAKE_INSTANCE_PROFILE", "BAKE_LAUNCH_TEMPLATE")


@click.command()
@click.option("--profile", metavar="NAME", help="The profile: profiles/NAME.yaml.")
@click.option(
    "--for",
    "audience",
    type=click.Choice(["caller", "worker", "schedule", "sweep", "promoter", "rollout", "prune"]),
    default="caller",
    show_default=True,
    help="Whoever bakes; the instance profile's role; builder.reaper_role; whoever sweeps, promotes, …",
)
@click.option("--account", metavar="ID", help="The account's id; without it STS is asked.")
@click.option(
    "--role", metavar="NAME", help="The worker's role, by name or ARN; without it the instance profile's."
)
@click.option("--asg", metavar="NAME", help="With --for rollout: the one Auto Scaling group; all without it.")
@click.option("--trust", is_flag=True, help="Print the role's trust policy: who may take it.")
@click.pass_obj
def iam(
    obj: dict[str, Any],
    profile: str | None,
    audience: Audience,
    account: str | None,
    role: str | None,
    asg: str | None,
    trust: bool,
) -> None:
    """Print the policy that a bake, worker, schedule, sweep, promotion, rollout or prune needs, as JSON.

    It follows the profile: a spot builder, a temporary security group, a mirror and the like have statements
    of their own. What is created must carry the tags of a bake of this profile, and only what carries them
    is stopped, ended, imaged or deleted. Rehearsals run under these policies. Nothing is changed.

    \b
    Examples:
      bake iam --profile g6e-ubuntu > caller.json
      aws iam put-role-policy --role-name baker --policy-name bake --policy-document file://caller.json
      bake iam --profile g6e-ubuntu --for worker --account 123456789012
      bake iam --profile g6e-ubuntu --for schedule --trust > trust.json
      aws iam create-role --role-name bake-reaper --assume-role-policy-document file://trust.json
      bake iam --profile g6e-ubuntu --for sweep > sweeper.json
      bake iam --profile g6e-ubuntu --for promoter > promoter.json
      bake iam --profile g6e-ubuntu --for rollout --asg workers > rollout.json
      bake iam --profile g6e-ubuntu --for prune > pruner.json
    """
    from bake import iam as policies
    from bake.iam.render import as_text

    name = profile or obj.get("profile")
    if not name:
        raise UsageError("--profile NAME is missing", hint="bake profiles lists them")
    if trust and audience in ("caller", "sweep", "promoter", "rollout", "prune"):
        raise UsageError(
            f"who takes the role of --for {audience} is your choice: a person, a CI job, a machine",
            hint="--trust goes with --for worker and --for schedule",
        )
    if asg is not None and audience != "rollout":
        raise UsageError("--asg goes with --for rollout")
    subject = _subject(*_load(str(name), obj, audience), audience, account, role)
    if asg is not None:
        subject = replace(subject, groups=(asg,))
    if trust and (found := policies.trust(audience, subject)) is not None:
        click.echo(as_text(found.as_dict()))
        return
    policy = policies.document(policies.statements(audience, subject))
    click.echo(as_text(policy))
    if wrong := policies.too_large(policy):
        say(f"{wrong}; aws iam put-role-policy makes it an inline one")


def _load(name: str, obj: dict[str, Any], audience: Audience) -> tuple[Profile, tuple[str, ...]]:
    """The profile, and the names of its secrets. None is read; what stands in no policy needs no value."""
    from bake import profile as profiles
    from bake.localcloud import EXAMPLES

    given = profiles.environment(obj["env_file"])
    meant = IN_ROLLOUTS if audience == "rollout" else ()
    free = {
        key
        for key in EXAMPLES
        if key in NOWHERE or (audience != "caller" and "REGION" not in key and key not in meant)
    }
    absent = {key: value for key, value in EXAMPLES.items() if key in free and not given.get(key)}
    if not given.get("HF_TOKEN", "").startswith(STORED):
        absent["HF_TOKEN"] = EXAMPLES["HF_TOKEN"]
    secrets: set[str] = set()

    def read(name: str, key: str) -> str:
        secrets.add(name)
        return "example"

    found = profiles.load(name, obj["directory"], given.overlaid(absent, "an example"), read)
    return found, tuple(sorted(secrets))


def _subject(
    profile: Profile, secrets: tuple[str, ...], audience: Audience, account: str | None, role: str | None
) -> Subject:
    """The profile in its account, with what AWS tells where it is not given."""
    from bake.aws import Aws
    from bake.iam import Subject, partition_of

    aws = Aws(region=profile.builder.region, worker_region=profile.worker.region)
    partition, number = partition_of(profile.builder.region), _account(account, aws)
    if audience not in ("caller", "rollout"):
        return Subject.of(profile, number, partition=partition)
    whose = _role_arn(role, partition, number) if role else _role_of(profile, partition, number, aws)
    if audience == "rollout":
        return Subject.of(profile, number, partition=partition, role=whose)
    return Subject.of(
        profile,
        number,
        partition=partition,
        role=whose,
        kms_key=_key_of(profile, aws),
        secrets=secrets,
    )


def _role_arn(role: str, partition: str, account: str) -> str:
    if not ROLE.fullmatch(role):
        raise UsageError(f"--role {role!r} is no role", hint="give its name or its ARN")
    return role if role.startswith("arn:") else f"arn:{partition}:iam::{account}:role/{role}"


def _role_of(profile: Profile, partition: str, account: str, aws: Aws) -> str:
    """The role of the instance profile; its namesake where AWS does not tell."""
    from bake.account.answers import Unanswered
    from bake.account.roles import ask_worker_role

    found, name = ask_worker_role(profile, aws), profile.builder.instance_profile
    if isinstance(found, str):
        return found
    why = found.why if isinstance(found, Unanswered) else "there is none"
    say(f"the role of the instance profile {name} is not known ({why}): taken to be {name}; see --role")
    return _role_arn(name, partition, account)


def _key_of(profile: Profile, aws: Aws) -> str | None:
    """The ARN of the volume's key; None, for all keys of the account, where AWS does not tell."""
    from bake.account.answers import Unanswered
    from bake.account.roles import ask_key_arn

    found = ask_key_arn(profile, aws)
    if isinstance(found, Unanswered):
        key = profile.root_volume.kms_key
        say(f"the ARN of the key {key} is not known ({found.why}): written for all keys of the account")
        return None
    return found
