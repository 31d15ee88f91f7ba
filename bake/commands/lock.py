"""The options of `bake lock`. Import what is heavy inside the command."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from bake.commands.options import ask, request_of, say
from bake.localcloud import trust_guests
from bake.redaction import redact_all


@click.command()
@click.option("--profile", metavar="NAME", help="The profile: profiles/NAME.yaml.")
@click.option("--update", is_flag=True, help="Replace a lock that differs: shows the difference and asks.")
@click.option(
    "--commit",
    metavar="COMMIT",
    help="With --update and without a terminal: the commit that the new lock is expected to be of.",
)
@click.option(
    "--revision",
    metavar="NAME",
    help="Look at a branch, tag or commit instead of the profile's; that is shown and not written.",
)
@click.option("--rehearse", is_flag=True, help="Lock the local cloud's Hub, for rehearsals. Needs root.")
@trust_guests
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def lock(
    obj: dict[str, Any],
    profile: str | None,
    update: bool,
    commit: str | None,
    revision: str | None,
    rehearse: bool,
    as_json: bool,
) -> None:
    """Pin the weights: size and hash of every file that is loaded, into profiles/NAME.lock.yaml.

    The Hub is asked for the profile's weights.revision; nothing large is downloaded. A bake then fetches
    exactly these files and refuses anything else. A lock that is there is replaced with --update only.

    \b
    Examples:
      bake lock --profile g6e-ubuntu
      bake lock --profile g6e-ubuntu --revision main    which commit is that now, and what is different in it?
      bake lock --profile g6e-ubuntu --update
    """
    from bake.commands.locking import LockOptions, run

    request = request_of(obj, profile, rehearse=rehearse)
    outcome = run(request, LockOptions(update, commit, revision), say, ask if sys.stdin.isatty() else None)
    if as_json or obj["as_json"]:
        click.echo(json.dumps(redact_all(outcome), indent=2))
