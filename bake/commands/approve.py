"""The options of `bake approve`. Import what is heavy inside the command."""

from __future__ import annotations

import sys
from typing import Any

import click

from bake.commands.options import ask, profile_and_rehearse, request_of, say


@click.command()
@profile_and_rehearse
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

    request = request_of(obj, profile, rehearse=rehearse)
    record(request, Approval.of(facts, because), say, ask if sys.stdin.isatty() else None)
