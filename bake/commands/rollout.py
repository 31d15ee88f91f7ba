"""`bake rollout`: give the instances of an Auto Scaling group the AMI that a channel serves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bake.commands import rollout_options, serving
from bake.commands.options import profile_and_rehearse, say
from bake.errors import BakeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import ExitStack

    from bake.aws import Aws
    from bake.publish.channels import Channel
    from bake.rollout.plan import Rollout
    from bake.rollout.refreshes import Refresh

OTHERS = ("status", "cancel", "roll_back")


@click.command()
@click.option("--channel", metavar="CHANNEL", help="The channel whose AMI the group gets.")
@click.option("--asg", required=True, metavar="NAME", help="The Auto Scaling group.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--wait", is_flag=True, help="Follow the refresh to its end; exit code 5 unless it succeeds.")
@click.option("--status", is_flag=True, help="Show the group's newest refresh, and start none.")
@click.option("--cancel", is_flag=True, help="Cancel the refresh that goes on; what it replaced stays.")
@click.option("--roll-back", is_flag=True, help="Roll the refresh back that goes on.")
@rollout_options.preferences
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@profile_and_rehearse
@click.pass_obj
def rollout(obj: dict[str, Any], /, **given: Any) -> None:
    """Start an instance refresh that gives an Auto Scaling group the AMI that a channel serves.

    The group must launch by the channel's template. It gets the template's version by its number, whose AMI
    is a literal id, so that AWS can roll back by itself where the refresh fails; all else of its mixed
    instances policy stays. Everything is looked at before anything is changed: what stands in the way is
    told, all of it at once, with exit code 2, a refresh that goes on with exit code 5. A group that is there
    already is left alone.

    A new instance comes before an old one goes, since a GPU that is given back may not be had again. With
    --replace-root-volume the instances stay, and only their root volumes are replaced.

    \b
    Examples:
      bake rollout --channel stable --asg workers --dry-run
      bake rollout --channel stable --asg workers --wait
      bake rollout --channel stable --asg workers --checkpoint 10 --checkpoint-delay 1800 --bake-time 3600
      bake rollout --channel stable --asg workers --replace-root-volume
      bake rollout --profile g6e-ubuntu --asg workers --status --wait
      bake rollout --profile g6e-ubuntu --asg workers --roll-back
    """
    from contextlib import ExitStack

    chosen = [name for name in OTHERS if given[name]]
    _check(given, chosen)
    given["as_json"] = given["as_json"] or obj["as_json"]
    with ExitStack() as stack:
        if chosen:
            _other(obj, stack, given, chosen[0])
        else:
            _roll_out(obj, stack, given)


def _check(given: dict[str, Any], chosen: list[str]) -> None:
    """Raise UsageError for options that do not go together."""
    if len(chosen) > 1 or (chosen and given["dry_run"]):
        raise UsageError("--status, --cancel, --roll-back and --dry-run go alone: give one of them")
    if not chosen and not given["channel"]:
        raise UsageError("--channel NAME is missing", hint="bake channels lists them")
    if given["dry_run"] and given["wait"]:
        raise UsageError("--dry-run starts nothing that --wait could follow")


def _profile(obj: dict[str, Any], given: dict[str, Any]) -> str:
    name = given["profile"] or obj["profile"]
    if not name and not given["channel"]:
        raise UsageError("--profile NAME is missing", hint="or --channel NAME, where one profile has it")
    return str(name or serving.profile_with(obj, given["channel"]))


def _roll_out(obj: dict[str, Any], stack: ExitStack, given: dict[str, Any]) -> None:
    from bake.publish import channels
    from bake.rollout.plan import plan

    preferences, strategy = rollout_options.read(given)
    name, rehearse = _profile(obj, given), given["rehearse"]
    desk = serving.desk(obj, stack, name, rehearse=rehearse, agreed=serving.OF_CHANNELS)
    channel = channels.channel_of(desk.profile, given["channel"])
    aws = serving.rolling_out(serving.local_cloud(stack) if desk.request.rehearsal else None, desk.profile)
    found = plan(aws, channel, given["asg"], desk.venue, preferences, strategy)
    if found.is_there or given["dry_run"]:
        _show(channel, found, None, given)
        return
    _announce(found)
    refresh = _started(aws, found)
    if given["wait"]:
        refresh = _followed(aws, found.group.name, channel.profile, refresh)
    _show(channel, found, refresh, given)
    if given["wait"]:
        _judge(refresh, found.group.name, ("Successful",))


def _started(aws: Aws, found: Rollout) -> Refresh:
    """Start it; what is told of one that came in between is what is told of one that was there before."""
    from bake.aws import ClientError, error_code
    from bake.rollout import plan, refreshes

    try:
        return refreshes.start(aws, found.request)
    except ClientError as error:
        going = (
            refreshes.active(aws, found.group.name) if error_code(error) == refreshes.IN_PROGRESS else None
        )
        if going is None:
            raise
        raise plan.in_the_way(found.group, found.target, going) from error


def _other(obj: dict[str, Any], stack: ExitStack, given: dict[str, Any], what: str) -> None:
    """Show, cancel or roll back the group's refresh; that needs no agreement: it is how to stop something."""
    from bake.rollout import groups, refreshes

    name, group = _profile(obj, given), given["asg"]
    cloud = serving.local_cloud(stack) if given["rehearse"] or obj["rehearse"] else None
    aws = serving.rolling_out(cloud, serving.profile_of(obj, name, cloud))
    groups.describe(aws, group)
    act = {"status": refreshes.newest, "cancel": refreshes.cancel, "roll_back": refreshes.roll_back}[what]
    refresh = act(aws, group)
    if refresh is not None and given["wait"]:
        refresh = _followed(aws, group, name, refresh)
    _show_refresh(group, name, refresh, given)
    if refresh is not None and given["wait"]:
        _judge(refresh, group, WANTED[what])


# The end that each was asked for.
WANTED = {"status": ("Successful",), "cancel": ("Cancelled",), "roll_back": ("RollbackSuccessful",)}


def _followed(aws: Aws, group: str, profile: str, refresh: Refresh) -> Refresh:
    from bake.rollout import plan, refreshes

    try:
        return refreshes.follow(aws, group, refresh, say)
    except KeyboardInterrupt as error:
        error.add_note(f"the refresh {refresh.id} of {group} goes on without this command:")
        for line in plan.commands(profile, group):
            error.add_note(f"  {line}")
        raise


def _judge(refresh: Refresh, group: str, wanted: tuple[str, ...]) -> None:
    """Raise BakeError for another end than the one that was asked for."""
    if refresh.status in wanted:
        return
    raise BakeError(
        f"the refresh {refresh.id} of {group} ended as {refresh.status}, at {refresh.percentage} %"
        + (f": {refresh.reason}" if refresh.reason else ""),
        hint="its activities tell why: aws autoscaling describe-scaling-activities "
        f"--auto-scaling-group-name {group}",
    )


def _announce(found: Rollout) -> None:
    for line in _lines(found):
        say(line)


def _lines(found: Rollout) -> Iterable[str]:
    """A rollout in words."""
    told = found.request["Preferences"]
    yield f"{found.group.name} launches {found.before} of {found.target.version.template} now"
    yield f"and is to launch {found.after}"
    yield f"instances: {found.instances} ({found.strategy}{_healthy(told)})"
    yield "if it fails, AWS rolls it back" if told["AutoRollback"] else "if it fails, it stays half done"
    yield from (f"note: {one}" for one in found.notes)


def _healthy(told: dict[str, Any]) -> str:
    least, most = told.get("MinHealthyPercentage"), told.get("MaxHealthyPercentage")
    if least is None:
        return ", as many healthy as its maintenance policy says"
    return f", {least} % healthy at least" + (f", {most} % at most" if most is not None else "")


def _show(channel: Channel, found: Rollout, refresh: Refresh | None, given: dict[str, Any]) -> None:
    from bake.redaction import redact, redact_all

    if given["as_json"]:
        told = {"profile": channel.profile, "channel": channel.name, **found.as_dict()}
        whole = {**told, "refresh": refresh.as_dict() if refresh else None}
        click.echo(json.dumps(redact_all(whole), indent=2))
    elif refresh is not None:
        _show_refresh(found.group.name, channel.profile, refresh, given)
    elif found.is_there:
        click.echo(redact(f"{found.group.name} launches {found.before} already: nothing to do"))
    else:
        click.echo(redact("\n".join([*_lines(found), "", "StartInstanceRefresh would be sent:"])))
        click.echo(redact(json.dumps(dict(found.request), indent=2)))


def _show_refresh(group: str, profile: str, refresh: Refresh | None, given: dict[str, Any]) -> None:
    from bake.redaction import redact, redact_all
    from bake.rollout import plan

    if given["as_json"]:
        told = {"profile": profile, "asg": group, "refresh": refresh.as_dict() if refresh else None}
        click.echo(json.dumps(redact_all(told), indent=2))
    elif refresh is None:
        click.echo(f"{group} has had no refresh in six weeks")
    else:
        click.echo(redact(f"{group}: the refresh {refresh.id} is {refresh.line}"))
        for line in () if refresh.ended else plan.commands(profile, group):
            click.echo(f"  {line}")
