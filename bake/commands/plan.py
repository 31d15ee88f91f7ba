"""`bake plan`. Import what is heavy inside the command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse, request_of, say
from bake.redaction import redact, redact_all

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from bake.request import BakeRequest


@click.command()
@profile_and_rehearse
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--if-changed", is_flag=True, help="Say only whether a bake would make another image, and what changed."
)
@click.pass_obj
def plan(obj: dict[str, Any], profile: str | None, rehearse: bool, as_json: bool, if_changed: bool) -> None:
    """Show what a bake would do and whether all of it is agreed; changes nothing.

    Exit code 0 also when something is not agreed: that is part of the plan.

    \b
    Example:
      bake plan --profile g6e-ubuntu
      bake plan --profile g6e-ubuntu --rehearse --json
      bake plan --profile g6e-ubuntu --if-changed
    """
    from contextlib import ExitStack

    from bake.commands import proposal as proposal_of
    from bake.planning import render as plan_render
    from bake.progress import Tally
    from bake.request import local_cloud, propose

    request = request_of(obj, profile, rehearse=rehearse)
    as_json = as_json or obj["as_json"]
    with ExitStack() as stack:
        if if_changed or obj["if_changed"]:
            _tell_changes(request, stack, obj["runs"], as_json=as_json)
            return
        proposal = propose(request, local_cloud(request, stack, say), Tally())
    if as_json:
        found = {**plan_render.as_dict(proposal.plan), **proposal_of.as_dict(proposal)}
        click.echo(json.dumps(redact_all(found), indent=2))
    else:
        click.echo(redact(f"{plan_render.as_text(proposal.plan)}\n\n{proposal_of.plan_text(proposal)}"))


def _tell_changes(request: BakeRequest, stack: ExitStack, runs: Path, *, as_json: bool) -> None:
    """Print whether a bake would make another image."""
    from bake.commands.if_changed import decided
    from bake.progress import Tally
    from bake.request import local_cloud

    decision = decided(request, local_cloud(request, stack, say), runs, Tally())
    if as_json:
        click.echo(json.dumps(redact_all(decision.as_dict()), indent=2))
    else:
        text = f"would rebuild: {decision.sentence}" if decision.changed else decision.sentence
        click.echo(redact(text))
