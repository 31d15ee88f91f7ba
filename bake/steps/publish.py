"""Publish a good image as the profile asks, then remove images that the profile no longer keeps.

The image is good already, so a failure here is a note with the command to run by hand, and `bake publish`
does what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from bake.aws import Aws
from bake.image import Image
from bake.planning.parts import ImagePlan
from bake.publish import copies
from bake.publish.publishing import Publishing
from bake.publish.wanted import Published
from bake.run import Run
from bake.steps.attempt import attempt, ensure_imdsv2
from bake.steps.retire import retire

FACTS = "facts/publication.json"


def publish(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> Image:
    """Require IMDSv2, share and publish the image, remove old ones; return it as it is afterwards."""
    with run.progress.step("publish"):
        image = ensure_imdsv2(aws, run, image)
        if plan.share_with:
            by_hand = _by_hand(plan, aws, image)
            attempt(run, "the AMI is not shared", lambda: share(plan, aws, run, image), *by_hand)
        attempt(run, "the AMI is not published", lambda: spread(plan, aws, run, image))
        attempt(run, "older AMIs were not looked at", lambda: retire(plan, aws, run, image))
        return image


def share(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> None:
    """Share with the accounts of `image.share_with`, never publicly.

    FLUX.1-dev's licence binds everybody who gets the weights, so only agreed accounts are added.
    """
    copies.share(aws, image, plan.share_with)
    run.progress.note(f"shared with {', '.join(plan.share_with)}")


def spread(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> None:
    """Publish the image's marks, copies, parameters and template; keep what came of it for the report."""
    wanted = Publishing(aws, image, plan.wanted, plan.profile, plan.share_with, run.id)
    rows = wanted.all()
    if not rows:
        return
    run.keep(FACTS, json.dumps({"parts": [row.as_dict() for row in rows]}, indent=1) + "\n")
    for row in rows:
        run.progress.note(_told(row))
    if missing(rows):
        again = f"bake publish {image.id} --profile {plan.profile}{' --rehearse' if aws.endpoint else ''}"
        run.progress.note(f"what is missing is published with: {again}")


def missing(rows: Sequence[Published]) -> list[Published]:
    """The parts that are not published."""
    return [row for row in rows if row.state == "failed"]


def _told(row: Published) -> str:
    if row.state == "published":
        return f"published in {row.region}: {row.what} {row.id}"
    return f"not published in {row.region}: {row.what} {row.id} ({row.why})\n  do it with: {row.by_hand}"


def _by_hand(plan: ImagePlan, aws: Aws, image: Image) -> list[str]:
    accounts = plan.share_with
    permission = "Add=[" + ",".join(f"{{UserId={account}}}" for account in accounts) + "]"
    attribute = ("--attribute", "createVolumePermission", "--operation-type", "add", "--user-ids", *accounts)
    return [
        aws.command(
            "ec2", "modify-image-attribute", "--image-id", image.id, "--launch-permission", permission
        ),
        aws.command("ec2", "modify-snapshot-attribute", "--snapshot-id", image.snapshot, *attribute),
    ]
