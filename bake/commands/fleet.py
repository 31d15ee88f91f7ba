"""`bake fleet`: write the CloudFormation template of what serves a channel's AMI. Nothing is created."""

from __future__ import annotations

import json
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.commands import serving
from bake.commands.options import profile_and_rehearse, say
from bake.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bake.aws import Aws
    from bake.commands.serving import Desk
    from bake.fleet import Fleet, Part
    from bake.profile import Profile

# Set for a fleet, whatever else may be an example.
VARIABLES = ("BAKE_SUBNET_ID", "BAKE_SECURITY_GROUP_ID")


@click.command()
@profile_and_rehearse
@click.option("--channel", required=True, metavar="NAME", help="The channel whose AMI is launched.")
@click.option(
    "--part",
    type=click.Choice(["all", "jobs", "workers"]),
    help="Queue, bucket and bus, or what launches instances. Needed where they are in two regions.",
)
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="One more setting of the worker, as in bake userdata; may be given several times.",
)
@click.option("--account", metavar="ID", help="The account's id; without it STS is asked.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file, not to stdout."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of YAML.")
@click.pass_obj
def fleet(
    obj: dict[str, Any],
    profile: str | None,
    rehearse: bool,
    channel: str,
    part: Part | None,
    more: tuple[str, ...],
    account: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write the CloudFormation template of the spot instances that serve a channel's AMI.

    The stack has queue, bucket and bus, but for those that the profile names, the worker's role, a launch
    template with the AMI that the channel serves now, an Auto Scaling group from none to fleet.max_size, its
    policies and alarms. All that the profile's section `fleet` says must be agreed to. A stack is in one
    region: where AWS_REGION and SPOT_AWS_REGION differ, there are two. Nothing is created.

    \b
    Examples:
      bake fleet --profile flux --channel stable --part jobs --out jobs.yaml
      bake fleet --profile flux --channel stable --part workers --out workers.yaml
      bake fleet --profile flux --channel stable --part workers --set FLUX_S3_PREFIX=pictures/ --json
    """
    from bake.fleet import as_yaml, template

    with ExitStack() as stack:
        desk = _desk(obj, stack, profile, rehearse=rehearse)
        which = _part(desk.profile, channel, part)
        found = _fleet(desk, channel, more, account)
    made = template(found, which)
    text = json.dumps(made, indent=2) + "\n" if as_json or obj["as_json"] else as_yaml(made)
    _write(text, out)
    for line in _told(found, which, out):
        say(line)


def _desk(obj: dict[str, Any], stack: ExitStack, name: str | None, *, rehearse: bool) -> Desk:
    """The profile, with all agreed that the stack is made of."""
    from bake.agreement.facts import OF_FLEET

    names = (*serving.OF_IMAGES, *OF_FLEET)
    desk = serving.desk(obj, stack, name, rehearse=rehearse, agreed=names, needed=VARIABLES)
    if not desk.profile.fleet.used:
        raise UsageError(
            f"the profile {desk.profile.name} has no fleet",
            hint="add the section to the profile, then agree to it (docs/fleet.md)",
        )
    return desk


def _part(profile: Profile, channel: str, asked: Part | None) -> Part:
    """What is written: all of it where it is in one region; UsageError where that is to be said."""
    jobs, workers = profile.worker.region, profile.builder.region
    if asked == "all" or asked is None:
        if jobs == workers:
            return "all"
        base = f"bake fleet --profile {profile.name} --channel {channel}"
        raise UsageError(
            f"queue, bucket and bus are in {jobs}, the instances in {workers}, and a stack is in one region",
            hint=f"write two:\n  {base} --part jobs --out jobs.yaml\n"
            f"  {base} --part workers --out workers.yaml",
        )
    return asked


def _fleet(desk: Desk, channel: str, more: tuple[str, ...], account: str | None) -> Fleet:
    from bake.commands.userdata import pairs
    from bake.fleet import fleet_of

    image, root_device = _served(desk, channel)
    number = serving.account_id(account, desk.aws)
    return fleet_of(desk.profile, channel, number, image, root_device, pairs(more), desk.origins)


def _served(desk: Desk, channel: str) -> tuple[str, str]:
    """The AMI that the channel serves, and its root device; UsageError where it serves none that is fit."""
    from bake.image import describe_image, unfit
    from bake.publish.channels import channel_of, read

    aws: Aws = desk.aws
    one = channel_of(desk.profile, channel)
    held = read(aws, one.parameter)
    named = f"--profile {desk.profile.name}"
    if not held.is_image:
        what = f"holds {held.value[:60]!r}" if held.number else "does not exist"
        raise UsageError(
            f"the channel {channel} serves no AMI in {aws.region}: {one.parameter} {what}",
            hint=f"bake promote AMI {named} --to {channel}",
        )
    facts = describe_image(aws, held.value, disabled=True)
    why = "it does not exist any more"
    if facts is not None:
        why = unfit(facts, profile=desk.profile.name, venue=desk.venue) or ""
    if facts is None or why:
        raise UsageError(
            f"the channel {channel} serves {held.value}, which is not fit to be launched: {why}",
            hint=f"bake rollback {named} --channel {channel} serves the one before",
        )
    return held.value, str(facts["RootDeviceName"])


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from error


def _told(found: Fleet, part: Part, out: Path | None) -> Iterator[str]:
    """What to know of the stack, and what to do with the template."""
    asked = found.profile.fleet
    if part != "workers":
        if "queue" not in found.created:
            yield f"{found.queue_name} is yours: watch its dead letters yourself"
        if "bucket" not in found.created and asked.keep_days is not None:
            yield f"{found.profile.worker.bucket} is yours: fleet.keep_days says nothing of it"
    if part != "jobs" and found.profile.root_volume.kms_key is not None:
        yield "the policy of root_volume.kms_key must let AWSServiceRoleForAutoScaling use it (docs/fleet.md)"
    region = found.region if part == "workers" else found.jobs_region
    if not found.topics(region):
        yield f"alarms of {region} tell nobody: fleet.alarm_topics names no topic there"
    file = shlex.quote(str(out)) if out else "TEMPLATE"
    name = found.name if part == "all" else f"{found.name}-{part}"
    yield f"{found.image} serves {found.channel} now; to create or update the stack:"
    yield (
        f"  aws cloudformation deploy --region {region} --stack-name {name} "
        f"--template-file {file} --capabilities CAPABILITY_IAM"
    )
    template = found.profile.channels[found.channel].launch_template
    if part != "jobs" and template is not None:
        yield "then, for bake promote and a rollout, which go on from the default version:"
        yield (
            f"  aws ec2 modify-launch-template --region {region} --launch-template-id {template} "
            "--default-version LATEST  # the stack's output LaunchTemplateVersion"
        )
