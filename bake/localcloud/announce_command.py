"""`bake local announce`: what EC2 tells an instance. Heavy imports stay inside the command."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import click

from bake.errors import UsageError

CODES = ("instance-reboot", "system-reboot", "system-maintenance", "instance-retirement", "instance-stop")
STATES = ("InService", "Terminated", "Standby", "Detached")


@click.command()
@click.argument("instance")
@click.option("--event", type=click.Choice(CODES), help="A scheduled event, by EC2's code.")
@click.option("--in", "ahead", default="20m", show_default=True, help="Time from now to the event, like 1d.")
@click.option("--cancel", is_flag=True, help="Cancel the events that are scheduled.")
@click.option("--target", type=click.Choice(STATES), help="The target lifecycle state, as of a group.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def announce(
    instance: str, event: str | None, ahead: str, cancel: bool, target: str | None, as_json: bool
) -> None:
    """Announce to an instance what EC2 or its Auto Scaling group are about to do; nothing is carried out.

    An event is in the instance's metadata (events/maintenance/scheduled), a canceled one in its history; the
    target state is autoscaling/target-lifecycle-state.

    \b
    Examples:
      bake local announce i-0123456789abcdef0 --event system-reboot --in 10m
      bake local announce i-0123456789abcdef0 --cancel
      bake local announce i-0123456789abcdef0 --target Terminated
    """
    from bake.localcloud import host
    from bake.localcloud.lifecycle import cloud
    from bake.localcloud.network.control import over_socket
    from bake.localcloud.settings import Settings

    if [event is not None, cancel, target is not None].count(True) != 1:
        raise UsageError("give one of --event, --cancel and --target", hint="bake local announce --help")
    host.require_root()
    if cloud.current() is None:
        raise UsageError("the local cloud is not up", hint="bake local up")
    asked = {"instance": instance}
    if event:
        asked |= {"event": event, "ahead": ahead}
    if target:
        asked |= {"target": target}
    method = "DELETE" if cancel else "POST"
    found = over_socket(Settings.load())(method, f"/-/announcements?{urlencode(asked)}", None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif cancel:
        click.echo(f"{found['canceled']} scheduled events of {instance} are canceled")
    elif target:
        click.echo(f"the target lifecycle state of {instance} is {target}")
    else:
        click.echo(f"{event} of {instance} is scheduled for {found['event']['NotBefore']}")
