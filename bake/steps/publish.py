"""Share the image with the agreed accounts, then remove images that the profile no longer keeps.

The image is good already, so a failure here is a note with the command to run by hand.
"""

from __future__ import annotations

from bake.aws import Aws
from bake.image import Image, images_of, in_use, remove, remove_by_hand, state_of
from bake.planning.parts import ImagePlan
from bake.run import Run
from bake.steps.attempt import attempt, ensure_imdsv2


def publish(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> Image:
    """Require IMDSv2, share the image and remove old ones; return the image as it is afterwards."""
    with run.progress.step("publish"):
        image = ensure_imdsv2(aws, run, image)
        if plan.share_with:
            by_hand = _by_hand(plan, aws, image)
            attempt(run, "the AMI is not shared", lambda: share(plan, aws, run, image), *by_hand)
        attempt(run, "older AMIs were not looked at", lambda: retire(plan, aws, run, image))
        return image


def share(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> None:
    """Share with the accounts of `image.share_with`, never publicly.

    FLUX.1-dev's licence binds everybody who gets the weights, so only agreed accounts are added.
    """
    accounts = plan.share_with
    permission = [{"UserId": account} for account in accounts]
    aws.ec2.modify_image_attribute(ImageId=image.id, LaunchPermission={"Add": permission})  # type: ignore[typeddict-item]
    aws.ec2.modify_snapshot_attribute(
        SnapshotId=image.snapshot,
        Attribute="createVolumePermission",
        OperationType="add",
        UserIds=list(accounts),
    )
    run.progress.note(f"shared with {', '.join(accounts)}")


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


def retire(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> None:
    """Remove this profile's good images beyond the `image.keep` newest, unless instances run from them."""
    why = f"the profile keeps {plan.keep}"
    for old in outdated(plan, aws, image.id):
        remove_old(aws, run, old, why)


def outdated(plan: ImagePlan, aws: Aws, newest: str) -> list[str]:
    """List this profile's good images beyond the `keep` newest, oldest first; none if `keep` is not set."""
    keep = plan.keep
    if keep is None:
        return []
    good = [image for image in images_of(aws, plan.profile) if state_of(image) == "good"]
    others = [image["ImageId"] for image in good if image["ImageId"] != newest]
    return others[: max(len(others) - (keep - 1), 0)]


def remove_old(aws: Aws, run: Run, image_id: str, why: str) -> None:
    """Remove an old image, unless instances run from it; a failure is a note."""

    def act() -> None:
        if in_use(aws, image_id):
            run.progress.note(f"{image_id} is older than what is kept, but instances run from it: left alone")
            return
        remove(aws, image_id)
        run.progress.note(f"removed {image_id}: {why}")

    attempt(run, f"{image_id} was not removed", act, remove_by_hand(aws, image_id))
