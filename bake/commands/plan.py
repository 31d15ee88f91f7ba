"""`bake plan`. Import what is heavy inside the command."""

from __future__ import annotations

import json
from typing import Any

import click

from bake.commands.options import profile_and_rehearse, request_of, say
from bake.redaction import redact, redact_all


@click.command()
@profile_and_rehearse
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
    from bake.request import local_cloud, propose

    request = request_of(obj, profile, rehearse=rehearse)
    with ExitStack() as stack:
        proposal = propose(request, local_cloud(request, stack, say), Tally())
    if as_json or obj["as_json"]:
        found = {**plan_render.as_dict(proposal.plan), **proposal_of.as_dict(proposal)}
        click.echo(json.dumps(redact_all(found), indent=2))
    else:
        click.echo(redact(f"{plan_render.as_text(proposal.plan)}\n\n{proposal_of.plan_text(proposal)}"))
