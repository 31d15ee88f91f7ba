"""The options of `bake plan` and `bake approve`. Import what is heavy inside the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from bake.errors import UsageError
from bake.localcloud import trust_guests, trusted
from bake.redaction import redact, redact_all


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """What both commands take."""
    for option in (
        click.option(
            "--rehearse", is_flag=True, help="Ask the local cloud instead of AWS. Needs root, no account."
        ),
        trust_guests,
        click.option("--profile", metavar="NAME", help="The profile: profiles/NAME.yaml."),
    ):
        command = option(command)
    return command


def _profile(obj: dict[str, Any], name: str | None) -> str:
    """`bake plan --profile X`, or `bake --profile X plan`."""
    found = name or obj.get("profile")
    if not found:
        raise UsageError("--profile NAME is missing", hint="bake profiles lists them")
    return str(found)


@click.command()
@_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def plan(obj: dict[str, Any], profile: str | None, rehearse: bool, as_json: bool) -> None:
    """Show what a bake would do and whether all of it is agreed; changes nothing.

    Exit code 0 also when something is not agreed: that is part of the plan.

    \b
    Example:
      bake plan --profile g6e-ubuntu
      bake plan --profile g6e-ubuntu --rehearse --json
    """
    from contextlib import ExitStack

    from bake.commands import proposal as proposal_of
    from bake.planning import render as plan_render
    from bake.progress import Tally
    from bake.request import BakeRequest, local_cloud, propose

    request = BakeRequest(
        _profile(obj, profile), obj["directory"], obj["env_file"], rehearse or obj["rehearse"], trusted()
    )
    with ExitStack() as stack:
        proposal = propose(request, local_cloud(request, stack, _say), Tally())
    if as_json or obj["as_json"]:
        found = {**plan_render.as_dict(proposal.plan), **proposal_of.as_dict(proposal)}
        click.echo(json.dumps(redact_all(found), indent=2))
    else:
        click.echo(redact(f"{plan_render.as_text(proposal.plan)}\n\n{proposal_of.plan_text(proposal)}"))


@click.command()
@_options
@click.option(
    "--fact",
    "facts",
    metavar="NAME[=VALUE]",
    multiple=True,
    help="Agree to this fact only; may be given several times. Without a terminal, every changed fact must "
    "be named. With =VALUE it must still have that value; = alone stands for a fact that is not set.",
)
@click.option("--because", required=True, metavar="TEXT", help="Why; kept in the history.")
@click.pass_obj
def approve(
    obj: dict[str, Any], profile: str | None, rehearse: bool, facts: tuple[str, ...], because: str
) -> None:
    """Record what a profile may use: region, instance types, base AMI, disk, network, sharing.

    Shows what is not as agreed, asks, and writes profiles/NAME.lock.yaml, which belongs into git.
    With --rehearse the agreement is one for rehearsals only and lies in .bake/rehearsal.

    \b
    Example:
      bake approve --profile g6e-ubuntu --because "first agreement"
      bake approve --profile g6e-ubuntu --fact root_volume.size_gib=120 --because "room for a second model"
    """
    from bake.agreement.approve import Approval
    from bake.commands.approving import record
    from bake.request import BakeRequest

    request = BakeRequest(
        _profile(obj, profile), obj["directory"], obj["env_file"], rehearse or obj["rehearse"], trusted()
    )
    record(request, Approval.of(facts, because), _say, _ask if sys.stdin.isatty() else None)


def _say(text: str) -> None:
    click.echo(redact(text), err=True)


def _ask(question: str) -> bool:
    return click.confirm(redact(question), default=False, err=True)
