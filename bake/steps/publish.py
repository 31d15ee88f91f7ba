"""Hand the image over: share it with the agreed accounts; then remove what the profile no longer keeps.

The image is good by then: what fails here is a note with the command that does it by hand.
"""

from __future__ import annotations

from bake.aws import Aws
from bake.image import Image, images_of, in_use, remove, remove_by_hand, state_of
from bake.planning.plan import Plan
from bake.run import Run
from bake.steps.attempt import attempt, ensure_imdsv2


def publish(plan: Plan, aws: Aws, run: Run, image: Image) -> Image:
    """Have its instances need IMDSv2 if that is not so yet, share, retire; the image as it is then."""
    image = ensure_imdsv2(aws, run, image)
    accounts = plan.image.share_with
    if accounts:
        attempt(
            run, "the AMI is not shared", lambda: share(plan, aws, run, image), *_by_hand(plan, aws, image)
        )
    attempt(run, "older AMIs were not looked at", lambda: retire(plan, aws, run, image))
    return image


def share(plan: Plan, aws: Aws, run: Run, image: Image) -> None:
    """Share with the accounts of `image.share_with`, never publicly.

    FLUX.1-dev's licence binds whoever the weights are passed on to, so nobody is added who was not agreed.
    """
    accounts = plan.image.share_with
    permission = [{"UserId": account} for account in accounts]
    aws.ec2.modify_image_attribute(ImageId=image.id, LaunchPermission={"Add": permission})  # type: ignore[typeddict-item]
    aws.ec2.modify_snapshot_attribute(
        SnapshotId=image.snapshot,
        Attribute="createVolumePermission",
        OperationType="add",
        UserIds=list(accounts),
    )
    run.progress.note(f"shared with {', '.join(accounts)}")


def _by_hand(plan: Plan, aws: Aws, image: Image) -> list[str]:
    accounts = plan.image.share_with
    permission = "Add=[" + ",".join(f"{{UserId={account}}}" for account in accounts) + "]"
    attribute = ("--attribute", "createVolumePermission", "--operation-type", "add", "--user-ids", *accounts)
    return [
        aws.command(
            "ec2", "modify-image-attribute", "--image-id", image.id, "--launch-permission", permission
        ),
        aws.command("ec2", "modify-snapshot-attribute", "--snapshot-id", image.snapshot, *attribute),
    ]


def retire(plan: Plan, aws: Aws, run: Run, image: Image) -> None:
    """Remove this profile's good images beyond the `image.keep` newest; one that instances run from stays."""
    why = f"the profile keeps {plan.profile.image.keep}"
    for old in outdated(plan, aws, image.id):
        remove_old(aws, run, old, why)


def outdated(plan: Plan, aws: Aws, newest: str) -> list[str]:
    """This profile's good images beyond the `keep` newest, oldest first; none where `keep` is not set."""
    keep = plan.profile.image.keep
    if keep is None:
        return []
    good = [image for image in images_of(aws, plan.profile.name) if state_of(image) == "good"]
    others = [image["ImageId"] for image in good if image["ImageId"] != newest]
    return others[: max(len(others) - (keep - 1), 0)]


def remove_old(aws: Aws, run: Run, image_id: str, why: str) -> None:
    """Remove an image that is not kept any more, unless instances run from it; a failure is a note."""

    def act() -> None:
        if in_use(aws, image_id):
            run.progress.note(f"{image_id} is older than what is kept, but instances run from it: left alone")
            return
        remove(aws, image_id)
        run.progress.note(f"removed {image_id}: {why}")

    attempt(run, f"{image_id} was not removed", act, remove_by_hand(aws, image_id))
