"""`bake sweep`: show, and with --yes remove, what runs left whose lease has ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse, say

if TYPE_CHECKING:
    from contextlib import ExitStack

    from bake.aws import Aws
    from bake.lifecycle.sweep import Preview, Swept


@click.command()
@profile_and_rehearse
@click.option("--run", metavar="RUN", help="Only what this run left.")
@click.option(
    "--region", "regions", multiple=True, metavar="REGION", help="Look here, for all kinds; may be repeated."
)
@click.option("--yes", is_flag=True, help="Remove it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def sweep(
    obj: dict[str, Any],
    profile: str | None,
    rehearse: bool,
    run: str | None,
    regions: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Show what runs left whose lease has ended, and what it costs; with --yes, remove it.

    Only what carries a bake's tags, is a draft, and has an expiry in the past by AWS's clock: never what is
    in use, never a good or unproven AMI or its snapshots, and nothing by its name alone. It looks in
    SPOT_AWS_REGION and AWS_REGION, or in the regions of --profile and of its copies, and then only at that
    profile's things.

    Exit code 5 if AWS did not let it look at something, and 6 if something could not be removed.

    \b
    Examples:
      bake sweep                          what is there, and what it costs
      bake sweep --yes                    remove it; safe to schedule, and beside a living bake
      bake sweep --run 20261128-120000-0a1b2c --yes
      bake sweep --region eu-north-1 --region eu-west-1 --json
    """
    from contextlib import ExitStack

    from bake.lifecycle import render

    name = profile or obj["profile"]
    with ExitStack() as stack:
        clouds = _clouds(obj, name, regions, rehearse or obj["rehearse"], stack)
        seen, swept = _each(clouds, run, name, yes)
    if as_json or obj["as_json"]:
        from bake.redaction import redact_all

        click.echo(json.dumps(redact_all(render.as_dict(seen, swept)), indent=2))
    else:
        from bake.redaction import redact

        click.echo(redact(render.as_text(seen, swept)))
    _complain(seen, swept)


def _each(
    clouds: Sequence[Aws], run: str | None, profile: str | None, yes: bool
) -> tuple[list[Preview], list[Swept] | None]:
    """Look in each account's regions, then sweep them."""
    from bake.lifecycle.sweep import preview
    from bake.lifecycle.sweep import sweep as remove

    seen = [preview(aws, run, profile=profile) for aws in clouds]
    if not yes:
        return seen, None
    pairs = zip(clouds, seen, strict=True)
    try:
        return seen, [remove(aws.patiently(), seen=one, say=say) for aws, one in pairs]
    except KeyboardInterrupt as error:
        error.add_note("the sweep ended early: the same command removes the rest")
        raise


def _complain(seen: Sequence[Preview], swept: Sequence[Swept] | None) -> None:
    """Raise what makes the exit code: things that are left behind, or questions without an answer."""
    from bake.errors import BakeError, LeftBehind

    missing = [
        f"{what} were not looked at: {why}" for one in seen for what, why in one.inventory.unanswered.items()
    ]
    incomplete = BakeError("\n".join(missing), hint="add the rights of docs/aws.md, or try again later")
    if leaks := [leak for one in swept or () for leak in one.leaks]:
        raise LeftBehind(leaks) from (incomplete if missing else None)
    if missing:
        raise incomplete


def _clouds(
    obj: dict[str, Any], profile: str | None, regions: tuple[str, ...], rehearsal: bool, stack: ExitStack
) -> list[Aws]:
    """The account, with the regions to look in."""
    from bake.commands import account

    cloud = account.local_cloud(stack) if rehearsal else None
    if regions:
        return [account.clients(cloud, region, region) for region in dict.fromkeys(regions)]
    local = cloud.environment if cloud else {}
    copied = account.profile_of(obj, profile, local).publish.regions if profile else ()
    return [account.clients(cloud, *account.regions(obj, profile, local), copied)]
