"""`bake boot-check`: repeat the boot check of an AMI that was interrupted. It needs no builder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from bake.errors import UsageError
from bake.localcloud import asked_delays, trust_guests, trusted

if TYPE_CHECKING:
    from contextlib import ExitStack

    from bake.aws import Aws
    from bake.image import Image
    from bake.planning.plan import Plan
    from bake.run import Run
    from bake.steps.boot_check import Drawing


@click.command("boot-check")
@click.argument("ami")
@click.option("--profile", metavar="NAME", help="The profile; its own tag says which it was baked from.")
@click.option("--rehearse", is_flag=True, help="The AMI is on the local cloud. Needs root, no account.")
@trust_guests
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines on stdout.")
@click.pass_obj
def boot_check(obj: dict[str, Any], ami: str, profile: str | None, rehearse: bool, as_json: bool) -> None:
    """Boot an AMI and let it draw: it is good then, or bad and removed.

    For an AMI that a bake kept as unproven, since AWS, the network or a person ended its check. It is
    checked on the instance types that its profile names, within the agreement; sharing and `image.keep`
    follow when it is good.

    \b
    Example:
      bake boot-check ami-0123456789abcdef0
      bake boot-check ami-0123456789abcdef0 --rehearse
    """
    from contextlib import ExitStack

    from bake.commands.bake import proposed, reporting, running
    from bake.lease import Lease
    from bake.request import BakeRequest
    from bake.run import check_place, new

    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", ami):
        raise UsageError(f"{ami!r} is not an AMI id", hint="it looks like ami-0123456789abcdef0")
    rehearsal = rehearse or obj["rehearse"]
    with reporting(as_json or obj["as_json"]) as progress, ExitStack() as stack:
        check_place(obj["runs"])
        name = profile or obj["profile"] or profile_of_tag(ami, obj, rehearsal, stack)
        request = BakeRequest(name, obj["directory"], obj["env_file"], rehearsal, trusted(), asked_delays())
        proposal = proposed(request, stack, progress)
        aws = proposal.aws.patiently()
        image = _image(aws, ami)
        with running(proposal, new(obj["runs"], progress), "boot-check") as run:
            with Lease(proposal.plan.lease, aws, run):
                drawing = _check(proposal.plan, aws, run, image)
            text = f"{image.id} ({image.name}) is good: {drawing.file}, ready {drawing.ready_seconds:.0f} s "
            progress.emit("proved", image=image.id, directory=str(run.directory), text=f"{text}after boot")


def profile_of_tag(ami: str, obj: dict[str, Any], rehearsal: bool, stack: ExitStack) -> str:
    """The profile that the AMI's tag names, where the variables say in which region it is."""
    from bake.aws import Aws
    from bake.creation import tag_of
    from bake.image import describe_image
    from bake.profile import environment
    from bake.rehearsal import as_sweeper

    cloud = None
    if rehearsal:
        from bake import localcloud, surroundings

        surroundings.set_aside()
        cloud = stack.enter_context(localcloud.running(trust_guests=trusted(), delays=asked_delays()))
    region = (cloud.environment if cloud else environment(obj["env_file"])).get("SPOT_AWS_REGION")
    if not region:
        raise UsageError("the variable SPOT_AWS_REGION is not set", hint="set it, or name the --profile")
    aws = Aws(region=region, worker_region=region, **as_sweeper(cloud, region, region))
    facts = describe_image(aws, ami)
    if facts is None:
        raise UsageError(f"there is no {ami} in {region}", hint="is it in another region or account?")
    name = tag_of(facts.get("Tags"), "bake:profile")
    if not name:
        raise UsageError(f"{ami} was not made by bake: it has no tag bake:profile")
    return name


def _check(plan: Plan, aws: Aws, run: Run, image: Image) -> Drawing:
    from bake.steps.boot_check import boot_check as check
    from bake.steps.clean_up import clean_up
    from bake.steps.judge import judge
    from bake.steps.publish import publish
    from bake.steps.record_image import record_image
    from bake.undo import Undo

    with Undo(run.progress.status, run.leaks, run.journal.write) as undo:
        with judge(plan.image, aws, run, image, undo, record_image):
            drawing = check(plan, aws, run, undo, image.id)
        clean_up(undo, run)
    image = publish(plan.image, aws, run, image)
    record_image(aws, run, image, "good", published=True)
    return drawing


def _image(aws: Aws, ami: str) -> Image:
    """The AMI, if it is one of the account's that a bake made and that is available."""
    from bake.creation import tag_of
    from bake.image import describe_image, image_of, state_of

    facts = describe_image(aws, ami)
    if facts is None:
        raise UsageError(f"there is no {ami} in {aws.region}", hint="is it in another region or account?")
    if not tag_of(facts.get("Tags")):
        raise UsageError(f"{ami} was not made by bake: it has no tag bake:run")
    if state_of(facts) == "revoked":
        raise UsageError(f"{ami} is revoked: it is proved no more")
    if state_of(facts) == "good":
        raise UsageError(f"{ami} is good already: there is nothing to prove")
    if facts["State"] != "available":
        raise UsageError(f"{ami} is {facts['State']}", hint="wait until it is available")
    return image_of(facts)
