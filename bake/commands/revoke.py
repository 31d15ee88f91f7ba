"""`bake revoke`: see to it that an AMI is not served or launched any more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bake.commands import serving
from bake.commands.options import say

if TYPE_CHECKING:
    from contextlib import ExitStack

    from bake.aws import Aws
    from bake.localcloud import LocalCloud
    from bake.publish.revoke import Revoked


@click.command()
@click.argument("ami")
@click.option("--force", is_flag=True, help="Revoke it although something would launch it.")
@serving.options
@click.pass_obj
def revoke(
    obj: dict[str, Any],
    ami: str,
    force: bool,
    because: str,
    regions: tuple[str, ...],
    as_json: bool,
    profile: str | None,
    rehearse: bool,
) -> None:
    """Mark an AMI and its copies as revoked, then disable them: nothing serves or launches them any more.

    It refuses, and names them, while channels or other SSM parameters, launch templates by their default
    version, or Auto Scaling groups launch it; --force revokes it nevertheless. Instances that run go on. The
    AMI and its snapshots stay. Whom it was shared with lose it: they are named. Copies are looked for in the
    profile's regions; with --region, the AMI is in the first one named and copies in the others.

    \b
    Examples:
      bake revoke ami-0123456789abcdef0 --because "CVE-2026-1234 in its libpng"
      bake revoke ami-0123456789abcdef0 --because "leaks memory" --force --json
    """
    from contextlib import ExitStack

    from bake.publish import channels, places
    from bake.publish import revoke as revoking

    image = serving.image_id(ami)
    why = channels.reason(because, longest=channels.LONGEST_TAG)
    with ExitStack() as stack:
        rehearsal = rehearse or obj["rehearse"]
        cloud = serving.local_cloud(stack) if rehearsal else None
        aws, where = _clients(obj, stack, cloud, image, profile or obj["profile"], regions)
        known = [channel for _, channel in serving.channels_here(obj, cloud)]
        found = places.find(aws, image, where)
        revoked = revoking.revoke(found, why, known, say, force=force)
    _show(revoked, as_json=as_json or obj["as_json"])


def _clients(
    obj: dict[str, Any],
    stack: ExitStack,
    cloud: LocalCloud | None,
    image: str,
    profile: str | None,
    regions: tuple[str, ...],
) -> tuple[Aws, tuple[str, ...]]:
    """Whoever promotes the profile that the AMI was baked from, in the AMI's region; and those of copies."""
    from bake.commands import account
    from bake.profile import names

    if profile is None:
        profile = serving.profile_of_image(obj, stack, image, regions, rehearse=cloud is not None)
        if profile not in names(obj["directory"]):  # as of another checkout, or of none any more
            local = cloud.environment if cloud else {}
            home = (regions[0], regions[0]) if regions else account.regions(obj, None, local)
            return account.clients(cloud, *home).patiently(120), regions
    known = serving.profile_of(obj, profile, cloud)
    found, where = serving.clients(cloud, known), regions or serving.regions_of(known)
    return (found.elsewhere(where[0]).patiently(120) if where[0] != found.region else found), where


def _show(revoked: list[Revoked], *, as_json: bool) -> None:
    from bake.redaction import redact, redact_all

    if as_json:
        click.echo(json.dumps(redact_all({"revoked": [one.as_dict() for one in revoked]}), indent=2))
        return
    for one in revoked:
        done = f"{' and '.join(one.did)} now" if one.did else "it was already"
        click.echo(redact(f"{one.image} in {one.region} is revoked ({done}): {one.because}"))
        if one.lost:
            click.echo(f"these had it by sharing, and lost it: {', '.join(one.lost)}")
