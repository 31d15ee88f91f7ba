"""`bake prune`: show, and with --yes remove, AMIs that nothing refers to and no rule keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse, say
from bake.errors import BakeError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from bake.lifecycle.prune import Preview, Pruned, Scope
    from bake.profile import Profile


@click.command()
@profile_and_rehearse
@click.option(
    "--keep", type=click.IntRange(1), metavar="N", help="Keep the newest N good images of a profile."
)
@click.option(
    "--region", "regions", multiple=True, metavar="REGION", help="Look there, too; may be repeated."
)
@click.option(
    "--references",
    "files",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, path_type=Path),
    help="A folder or file that may name AMIs: Terraform, CloudFormation; may be repeated.",
)
@click.option("--yes", is_flag=True, help="Remove them, with their snapshots.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def prune(
    obj: dict[str, Any],
    profile: str | None,
    rehearse: bool,
    keep: int | None,
    regions: tuple[str, ...],
    files: tuple[Path, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Show which AMIs nothing keeps and nothing refers to, and what they cost; with --yes, remove them.

    A profile keeps its newest good images: as many as its image.keep says, or --keep. Beyond them, whatever
    an instance, a launch template, an Auto Scaling group, an SSM parameter, a channel, another account or a
    file below --references refers to stays, in every region that it is copied to. A question that AWS does
    not answer keeps what it could have protected. What no bake made is not looked at.

    Exit code 5 if AWS did not answer something, and 6 if something could not be removed.

    \b
    Examples:
      bake prune                                     all profiles here: what would go, and why the rest stays
      bake prune --profile g6e-ubuntu --keep 3
      bake prune --references infra --references /srv/stacks --yes
      bake prune --region eu-west-1 --json           look in that region, too
    """
    from contextlib import ExitStack

    from bake.lifecycle import prune as pruning
    from bake.lifecycle import retention_render

    name = profile or obj["profile"]
    with ExitStack() as stack:
        scope = _scope(obj, name, keep, regions, files, rehearse or obj["rehearse"], stack)
        seen = pruning.preview(scope)
        pruned = _prune(scope, seen) if yes else None
    if as_json or obj["as_json"]:
        from bake.redaction import redact_all

        click.echo(json.dumps(redact_all(retention_render.as_dict(seen, pruned)), indent=2))
    else:
        from bake.redaction import redact

        click.echo(redact(retention_render.as_text(seen, pruned)))
    _complain(seen, pruned)


def _prune(scope: Scope, seen: Preview) -> Pruned:
    from dataclasses import replace

    from bake.lifecycle.prune import prune as remove

    patient = {region: aws.patiently() for region, aws in scope.clouds.items()}
    try:
        return remove(replace(scope, clouds=patient), seen, say)
    except KeyboardInterrupt as error:
        error.add_note("it ended early: the same command removes the rest")
        raise


def _complain(seen: Preview, pruned: Pruned | None) -> None:
    """Raise what makes the exit code: AMIs that are left behind, or questions without an answer."""
    from bake.errors import LeftBehind

    unanswered = {**seen.unanswered, **(pruned.unanswered if pruned else {})}
    missing = [
        f"{what} could not be asked, so what they may protect stays: {why}"
        for what, why in unanswered.items()
    ]
    hint = "add the rights that bake iam --for prune prints (docs/aws.md), or try again later"
    incomplete = BakeError("\n".join(missing), hint=hint)
    if pruned is not None and pruned.leaks:
        raise LeftBehind(pruned.leaks) from (incomplete if missing else None)
    if missing:
        raise incomplete


def _scope(
    obj: dict[str, Any],
    name: str | None,
    keep: int | None,
    regions: tuple[str, ...],
    files: tuple[Path, ...],
    rehearsal: bool,
    stack: ExitStack,
) -> Scope:
    """The regions to look in, and the profiles' rules."""
    from bake.commands import account
    from bake.lifecycle.prune import Scope
    from bake.lifecycle.retention import Rule
    from bake.lifecycle.retention_rules import KEEP_UNPROVEN, regions_of, rule_of

    cloud = account.local_cloud(stack) if rehearsal else None
    local = cloud.environment if cloud else {}
    known = _profiles(obj, name, local)
    first = _regions(obj, name, regions, local)
    everywhere = [*first, *(one for each in known for one in regions_of(each)), *regions]
    rules = {each.name: rule_of(each, keep) for each in known}
    return Scope(
        account.pruning(cloud, tuple(dict.fromkeys(everywhere))),
        rules,
        files,
        profile=name,
        otherwise=None if keep is None else Rule(keep, KEEP_UNPROVEN),
    )


def _regions(
    obj: dict[str, Any], name: str | None, regions: tuple[str, ...], local: Mapping[str, str]
) -> list[str]:
    """Where builders are: the region of --profile, or SPOT_AWS_REGION, which --region may stand for."""
    from bake.commands import account
    from bake.errors import UsageError

    try:
        return [account.regions(obj, name, local)[0]]
    except UsageError:
        if name or not regions:
            raise
        return []


def _profiles(obj: dict[str, Any], name: str | None, local: Mapping[str, str]) -> list[Profile]:
    """The named profile, or all that are here and can be read; without its file a profile has no rule."""
    from bake import profile as profiles
    from bake.commands import account

    if name:
        return [account.profile_of(obj, name, local)]
    found = []
    for each in profiles.names(obj["directory"]):
        try:
            found.append(account.profile_of(obj, each, local))
        except BakeError as error:
            say(f"the profile {each} says nothing of what is kept: {error.message}")
    return found
