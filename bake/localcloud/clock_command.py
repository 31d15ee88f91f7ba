"""`bake local clock`: advance the API's clock. Heavy imports stay inside the command."""

from __future__ import annotations

import json
from datetime import timedelta

import click

from bake.errors import UsageError


@click.command()
@click.argument("to", metavar="[+3h|+30m|+2d|reset]", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def clock(to: str, as_json: bool) -> None:
    """Show the clock of the local cloud's API, move it on, or reset it to this host's.

    Answers' Date headers, launch and creation times, spot requests and schedules follow it. Signatures and
    sessions stay on this host's clock, which is never set, and machines have it, too.

    \b
    Example:
      bake local clock
      bake local clock +3h
      bake local clock reset
    """
    from bake.localcloud import host
    from bake.localcloud.lifecycle import cloud
    from bake.localcloud.network.control import over_socket
    from bake.localcloud.settings import Settings

    host.require_root()
    if cloud.current() is None:
        raise UsageError("the local cloud is not up", hint="bake local up")
    method = {"": "GET", "reset": "DELETE"}.get(to, "POST")
    found = over_socket(Settings.load())(method, "/-/clock", to.encode() if method == "POST" else None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        ahead = timedelta(seconds=found["ahead_s"])
        click.echo(f"{found['now']}, {f'{ahead} ahead of' if ahead else 'as'} this host's clock")
