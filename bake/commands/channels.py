"""`bake channels`: what each channel serves, since when, by whom and why, and what is not as it should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from bake.commands import serving
from bake.commands.options import profile_and_rehearse

if TYPE_CHECKING:
    from bake.publish.channels import Version
    from bake.publish.standing import Standing


@click.command()
@profile_and_rehearse
@click.option("--history", is_flag=True, help="All that each channel served, as far as AWS still has it.")
@click.option("--region", "regions", multiple=True, metavar="REGION", help="Look there; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, with the history of each.")
@click.pass_obj
def channels(
    obj: dict[str, Any],
    profile: str | None,
    rehearse: bool,
    history: bool,
    regions: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the channels of --profile, or of all profiles here: which AMI each serves, since when, and why.

    Below the list stands what is not as it should be, with the command that mends it: a launch template that
    does not launch what the parameter holds, an AMI that is gone, disabled or revoked. AWS keeps the last
    hundred versions of a parameter.

    \b
    Examples:
      bake channels
      bake channels --profile g6e-ubuntu --history
      bake channels --json
    """
    from bake.redaction import redact, redact_all

    with ExitStack() as stack:
        found = list(_standings(obj, stack, profile or obj["profile"], rehearse or obj["rehearse"], regions))
    if as_json or obj["as_json"]:
        click.echo(json.dumps(redact_all([one.as_dict() for one in found]), indent=2))
    elif not found:
        click.echo("no profile here has channels" if profile is None else f"{profile} has no channels")
    else:
        click.echo(redact("\n\n".join(_texts(found, history))))


def _standings(
    obj: dict[str, Any], stack: ExitStack, name: str | None, rehearsal: bool, regions: tuple[str, ...]
) -> Iterator[Standing]:
    """Each channel in its regions."""
    from bake.publish.channels import channels_of
    from bake.publish.standing import look

    cloud = serving.local_cloud(stack) if rehearsal else None
    if name:
        one = serving.profile_of(obj, name, cloud)
        pairs = [(one, channel) for channel in channels_of(one)]
    else:
        pairs = list(serving.channels_here(obj, cloud))
    clients = {profile.name: serving.clients(cloud, profile) for profile, _ in pairs}
    for profile, channel in pairs:
        aws, venue = clients[profile.name], serving.venue(rehearsal)
        for region in dict.fromkeys(regions or serving.regions_of(profile)):
            home = region == aws.region
            yield look(aws if home else aws.elsewhere(region), channel, venue, home=home)


def _texts(found: list[Standing], history: bool) -> Iterator[str]:
    """The table, then the histories, then what is to be mended."""
    from bake.columns import table

    header = ("channel", "profile", "region", "serves", "version", "since", "by", "because")
    yield table(header, [_row(one) for one in found])
    if history:
        for one in found:
            rows = [_told(version) for version in reversed(one.versions)]
            title = f"{one.channel.name} of {one.channel.profile} in {one.region} ({one.channel.parameter}):"
            yield (
                f"{title}\n\n{table(('version', 'served', 'since', 'by', 'because'), rows)}"
                if rows
                else title
            )
    lines = [f"{one.channel.name}: {text}" for one in found for text in (*one.faults, *one.notes)]
    if lines:
        yield "\n".join(lines)


def _row(one: Standing) -> tuple[str, ...]:
    if not one.now.number:
        return (one.channel.name, one.channel.profile, one.region, "nothing yet", "-", "-", "-", "-")
    version, value, since, who, why = _told(one.now)
    return (one.channel.name, one.channel.profile, one.region, value, version, since, who, why)


def _told(version: Version) -> tuple[str, ...]:
    from bake.creation import stamp
    from bake.report.text import line

    who = version.who.rpartition(":")[2] or "-"  # the account is in the ARN before it
    cells = (str(version.number), version.value, stamp(version.when), who, version.why or "-")
    return tuple(line(cell, 120) for cell in cells)
