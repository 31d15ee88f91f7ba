"""`bake publish`: publish a good AMI as its profile says, or finish what a bake published by half."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from bake.errors import BakeError, UsageError
from bake.localcloud import asked_delays, trust_guests, trusted

if TYPE_CHECKING:
    from bake.aws import Aws
    from bake.image import Image
    from bake.planning.parts import ImagePlan
    from bake.progress import Progress
    from bake.publish.wanted import Published


@click.command()
@click.argument("ami")
@click.option("--profile", metavar="NAME", help="The profile; its own tag says which it was baked from.")
@click.option("--rehearse", is_flag=True, help="The AMI is on the local cloud. Needs root, no account.")
@trust_guests
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines on stdout.")
@click.pass_obj
def publish(obj: dict[str, Any], ami: str, profile: str | None, rehearse: bool, as_json: bool) -> None:
    """Publish a good AMI as its profile says: what is missing, and only that.

    For an AMI whose bake could not publish all of it, or was cut; and after the profile's `publish` changed
    and was agreed to. Copies, parameters, the template's version and the AMI's own marks are looked up first,
    so it may be called as often as you like. What somebody else changed is told, and stays.

    Exit code 5 if something could not be published: each is named, with the command that does it.

    \b
    Examples:
      bake publish ami-0123456789abcdef0
      bake publish ami-0123456789abcdef0 --profile g6e-ubuntu --json
    """
    from contextlib import ExitStack

    from bake.commands.bake import proposed, reporting
    from bake.commands.boot_check import profile_of_tag
    from bake.request import BakeRequest

    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", ami):
        raise UsageError(f"{ami!r} is not an AMI id", hint="it looks like ami-0123456789abcdef0")
    rehearsal = rehearse or obj["rehearse"]
    with reporting(as_json or obj["as_json"]) as progress, ExitStack() as stack:
        name = profile or obj["profile"] or profile_of_tag(ami, obj, rehearsal, stack)
        request = BakeRequest(name, obj["directory"], obj["env_file"], rehearsal, trusted(), asked_delays())
        proposal = proposed(request, stack, progress)
        aws = proposal.aws.patiently()
        rows = _publish(proposal.plan.image, aws, _image(aws, ami, proposal.plan.profile.name), progress)
        told = [row.as_dict() for row in rows]
        progress.emit("published", image=ami, parts=told, text=f"{ami}: {_count(rows)}")
        _complain(ami, rows)


def _publish(plan: ImagePlan, aws: Aws, image: Image, progress: Progress) -> list[Published]:
    """Do it as a bake does; what is kept of that goes, since the AMI's report is that of its bake."""
    import secrets
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from bake.publish.wanted import Published
    from bake.run import Run
    from bake.steps.publish import FACTS
    from bake.steps.publish import publish as step

    with TemporaryDirectory(prefix="bake-publish-") as folder:
        run = Run(f"publish-{secrets.token_hex(6)}", Path(folder), progress)
        step(plan, aws, run, image)
        file = run.directory / FACTS
        told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return [Published(**row) for row in told.get("parts", ())]


def _count(rows: list[Published]) -> str:
    if not rows:
        return "its profile publishes nothing beyond sharing"
    done = sum(row.state == "published" for row in rows)
    return f"{done} of {len(rows)} parts are published"


def _complain(ami: str, rows: list[Published]) -> None:
    if failed := [row for row in rows if row.state == "failed"]:
        what = "\n".join(f"  {row.what} in {row.region}: {row.why}" for row in failed)
        raise BakeError(
            f"{len(failed)} of {len(rows)} parts of {ami} are not published:\n{what}",
            hint="the notes above have the commands; the same `bake publish` does what is missing",
        )


def _image(aws: Aws, ami: str, profile: str) -> Image:
    """The AMI, if a bake of this profile made it and it is good."""
    from bake.creation import tag_of
    from bake.image import describe_image, image_of, state_of
    from bake.publish.copies import COPY_TAG

    facts = describe_image(aws, ami)
    if facts is None:
        raise UsageError(f"there is no {ami} in {aws.region}", hint="is it in another region or account?")
    tags = facts.get("Tags")
    if not tag_of(tags):
        raise UsageError(f"{ami} was not made by bake: it has no tag bake:run")
    if copied := tag_of(tags, COPY_TAG):
        raise UsageError(f"{ami} is a copy of {copied}", hint="publish the AMI that it is a copy of")
    if (made := tag_of(tags, "bake:profile")) != profile:
        raise UsageError(f"{ami} was baked from the profile {made}, not {profile}")
    if (state := state_of(facts)) != "good":
        raise UsageError(
            f"{ami} is {state}: only good AMIs are published",
            hint=f"bake boot-check {ami} proves a draft or an unproven one",
        )
    if facts["State"] != "available":
        raise UsageError(f"{ami} is {facts['State']}", hint="wait until it is available")
    return image_of(facts)
