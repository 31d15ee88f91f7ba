"""`bake promote` and `bake rollback`: change what a channel serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bake.commands import serving
from bake.commands.options import say

if TYPE_CHECKING:
    from bake.commands.serving import Desk
    from bake.publish.channels import Channel
    from bake.publish.promote import Served


@click.command()
@click.argument("ami")
@click.option("--to", "name", required=True, metavar="CHANNEL", help="The channel, as the profile names it.")
@serving.options
@click.pass_obj
def promote(
    obj: dict[str, Any],
    ami: str,
    name: str,
    because: str,
    regions: tuple[str, ...],
    as_json: bool,
    profile: str | None,
    rehearse: bool,
) -> None:
    """Serve an AMI in a channel: write its id into the channel's SSM parameter; the launch template follows.

    Only an AMI of the profile's own bakes that is good, not revoked, disabled or deprecated, whose disks are
    the agreed ones. The parameter is written first. If the template could not follow, the same command
    again completes it. If somebody else changes the parameter meanwhile, that is reported, with exit code 5,
    and the template is left as it is. Without --profile the AMI's tag says which it was baked from.

    \b
    Examples:
      bake promote ami-0123456789abcdef0 --to stable --because "a week in next"
      bake promote ami-0123456789abcdef0 --profile g6e-ubuntu --to next --because "nightly" --json
    """
    from contextlib import ExitStack

    from bake.publish import channels, places
    from bake.publish import promote as promoting

    image = serving.image_id(ami)
    why = channels.reason(because)
    with ExitStack() as stack:
        named = (
            profile
            or obj["profile"]
            or serving.profile_of_image(obj, stack, image, regions, rehearse=rehearse)
        )
        desk = serving.desk(obj, stack, named, rehearse=rehearse, agreed=serving.OF_IMAGES)
        channel = channels.channel_of(desk.profile, name)
        found = places.find(desk.aws, image, desk.regions(regions))
        for place in found:
            facts = promoting.fit(place, channel.profile, desk.venue)
            promoting.check_agreed(facts, desk.agreed, desk.profile.base.accelerator)
        served = promoting.promote(channel, found, why, desk.venue, serving.run_id(), say)
        _announce(desk, channel, served, why)
    _show(channel, served, as_json=as_json or obj["as_json"])


@click.command()
@click.option("--channel", "name", required=True, metavar="CHANNEL", help="The channel to roll back.")
@click.option("--to", "ami", metavar="AMI", help="An AMI that it served once, instead of the one before.")
@serving.options
@click.pass_obj
def rollback(
    obj: dict[str, Any],
    name: str,
    ami: str | None,
    because: str,
    regions: tuple[str, ...],
    as_json: bool,
    profile: str | None,
    rehearse: bool,
) -> None:
    """Serve the AMI again that a channel served before.

    It goes back through the channel's history to the newest AMI before the present one that is still there,
    good, and not revoked or disabled, and says which it passed over and why. Rolled back again, it goes
    further back: not to what the rollback before has left. --profile may be left out where one profile alone
    has a channel of that name.

    \b
    Examples:
      bake rollback --channel stable --because "black pictures since noon"
      bake rollback --profile g6e-ubuntu --channel stable --to ami-0123456789abcdef0 --because "INC-7"
    """
    from contextlib import ExitStack

    from bake.publish import channels
    from bake.publish import rollback as rolling

    to = serving.image_id(ami) if ami else None
    why = channels.reason(because, prefix=channels.ROLLBACK)
    with ExitStack() as stack:
        named = profile or obj["profile"] or serving.profile_with(obj, name)
        desk = serving.desk(obj, stack, named, rehearse=rehearse, agreed=serving.OF_CHANNELS)
        channel = channels.channel_of(desk.profile, name)
        chosen = rolling.choose(desk.aws, channel, desk.venue, to)
        for image, reason in chosen.skipped:
            say(f"{image} is passed over: {reason}")
        served = _back(desk, channel, chosen.image, why, regions)
        _announce(desk, channel, served, why)
    skipped = [{"image": image, "why": reason} for image, reason in chosen.skipped]
    _show(channel, served, as_json=as_json or obj["as_json"], skipped=skipped)


def _back(desk: Desk, channel: Channel, image: str, why: str, regions: tuple[str, ...]) -> list[Served]:
    from bake.publish import places
    from bake.publish.promote import promote as serve

    found = places.find(desk.aws, image, desk.regions(regions))
    return serve(channel, found, why, desk.venue, serving.run_id(), say, deprecated=True)


def _announce(desk: Desk, channel: Channel, served: Sequence[Served], why: str) -> None:
    """Tell the profile's bus where the channel serves another AMI now."""
    from bake import notices
    from bake.commands.ending import tell_bus

    bus = desk.profile.notices
    for one in served:
        if bus is not None and one.wrote:
            told = {"channel": channel.name, "parameter": channel.parameter, **one.as_dict()}
            about = notices.of_promotion(channel.profile, desk.venue, why, told)
            tell_bus(desk.aws, bus, *about, say)


def _show(channel: Channel, served: Sequence[Served], *, as_json: bool, **more: Any) -> None:
    from bake.redaction import redact_all

    if as_json:
        told = {"profile": channel.profile, "channel": channel.name, "parameter": channel.parameter}
        whole = {**told, "served": [one.as_dict() for one in served], **more}
        click.echo(json.dumps(redact_all(whole), indent=2))
        return
    for one in served:
        before = f"instead of {one.before}" if one.before else "as its first"
        done = before if one.wrote else "as before"
        click.echo(f"{channel.name} serves {one.image} in {one.region}, {done} (version {one.version})")
        if one.template is not None:
            click.echo(f"version {one.template} of {channel.template} is its default")
