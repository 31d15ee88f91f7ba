"""`bake local interrupt`: take a spot instance back as EC2 does. Heavy imports stay inside the command."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import click

from bake.errors import UsageError


@click.command()
@click.argument("instance")
@click.option(
    "--notice", default="2m", show_default=True, help="Time from the notice to the interruption, like 0s."
)
@click.option("--restore", is_flag=True, help="There is capacity again: start it, with a new address.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def interrupt(instance: str, notice: str, restore: bool, as_json: bool) -> None:
    """Interrupt a spot instance as EC2 does, or start it again.

    The notice is in the instance's metadata (spot/instance-action, and a rebalance recommendation) and on the
    default event bus. After it, by the clock of the cloud, the instance is stopped or terminated, as its
    request says. StartInstances is refused for one that was stopped: EC2 starts it itself, here with
    --restore.

    \b
    Example:
      bake local interrupt i-0123456789abcdef0
      bake local interrupt i-0123456789abcdef0 --notice 0s
      bake local interrupt i-0123456789abcdef0 --restore
    """
    from bake.localcloud import host
    from bake.localcloud.lifecycle import cloud
    from bake.localcloud.network.control import over_socket
    from bake.localcloud.settings import Settings

    host.require_root()
    if cloud.current() is None:
        raise UsageError("the local cloud is not up", hint="bake local up")
    given = {"instance": instance} if restore else {"instance": instance, "notice": notice}
    ask, method = over_socket(Settings.load()), "DELETE" if restore else "POST"
    found = ask(method, f"/-/interruptions?{urlencode(given)}", None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif restore:
        click.echo(f"{instance} starts again, at {found['address']}")
    else:
        told = {"stop": "stopped", "terminate": "terminated"}.get(found["action"], found["action"])
        click.echo(f"{instance} has its notice; it is {told} at {found['at']}")
