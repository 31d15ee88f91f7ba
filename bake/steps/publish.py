"""Hand the image over: share it with the agreed accounts; then remove what the profile no longer keeps."""

from __future__ import annotations

from bake.aws import Aws
from bake.plan import Plan
from bake.run import Run
from bake.steps.create_image import Image, remove


def share(plan: Plan, aws: Aws, run: Run, image: Image) -> None:
    """Share with the accounts of `image.share_with`, never publicly.

    FLUX.1-dev's licence binds whoever the weights are passed on to, so nobody is added who was not agreed.
    """
    accounts = plan.profile.image.share_with
    if not accounts:
        return
    permission = [{"UserId": account} for account in accounts]
    aws.ec2.modify_image_attribute(ImageId=image.id, LaunchPermission={"Add": permission})  # type: ignore[typeddict-item]
    aws.ec2.modify_snapshot_attribute(
        SnapshotId=image.snapshot,
        Attribute="createVolumePermission",
        OperationType="add",
        UserIds=list(accounts),
    )
    run.progress.note(f"shared with {', '.join(accounts)}")


def retire(plan: Plan, aws: Aws, run: Run, image: Image) -> None:
    """Remove this profile's images beyond the `image.keep` newest; one that instances run from stays."""
    for old in outdated(plan, aws, image.id):
        if _in_use(aws, old):
            run.progress.note(f"{old} is older than what is kept, but instances run from it: left alone")
        else:
            remove(aws, old)
            run.progress.note(f"removed {old}: the profile keeps {plan.profile.image.keep}")


def outdated(plan: Plan, aws: Aws, newest: str) -> list[str]:
    """This profile's images beyond the `keep` newest, oldest first; none where `keep` is not set."""
    keep = plan.profile.image.keep
    if keep is None:
        return []
    filters = [{"Name": "tag:bake:profile", "Values": [plan.profile.name]}]
    images = aws.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]  # type: ignore[arg-type]
    others = [image for image in images if image["ImageId"] != newest]
    others.sort(key=lambda image: image["CreationDate"])
    return [image["ImageId"] for image in others[: max(len(others) - (keep - 1), 0)]]


def _in_use(aws: Aws, image_id: str) -> bool:
    filters = [
        {"Name": "image-id", "Values": [image_id]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    return bool(aws.ec2.describe_instances(Filters=filters)["Reservations"])  # type: ignore[arg-type]
