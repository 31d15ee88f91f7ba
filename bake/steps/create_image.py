"""Stop the sealed builder and make the AMI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bake.agreement.facts import check_image
from bake.aws import Aws
from bake.errors import BakeError
from bake.plan import Plan
from bake.run import Run
from bake.steps.launch import Instance, describe, tags
from bake.undo import Undo


@dataclass(frozen=True)
class Image:
    """An available AMI and its root snapshot; `root_gib` is the snapshot's volume size."""

    id: str
    name: str
    snapshot: str
    root_gib: int


def stop(aws: Aws, instance: Instance) -> None:
    """Shut the builder down cleanly, so that its file system is whole in the snapshot."""
    aws.ec2.stop_instances(InstanceIds=[instance.id])

    def stopped() -> bool | None:
        facts = describe(aws, instance.id)
        return True if facts and facts["State"]["Name"] == "stopped" else None

    aws.wait(f"{instance.id} to stop", stopped, timeout=900)


def create_image(plan: Plan, aws: Aws, run: Run, instance: Instance, draft: Undo) -> Image:
    """CreateImage, and wait until the AMI is available; a failed one is removed with its snapshots."""
    name = plan.profile.image.name.format(profile=plan.profile.name, run=run.id)
    image_tags = tags(plan, run, name)
    with draft.creating():
        image_id = aws.ec2.create_image(
            InstanceId=instance.id,
            Name=name,
            Description=f"FLUX.1-dev worker, baked from {plan.base.id} as plan {plan.id}",
            TagSpecifications=[
                {"ResourceType": "image", "Tags": image_tags},
                {"ResourceType": "snapshot", "Tags": image_tags},
            ],
        )["ImageId"]
        draft.add(
            f"AMI {image_id}",
            lambda: remove(aws, image_id),
            by_hand=f"aws ec2 deregister-image --region {aws.region} --image-id {image_id} "
            "--delete-associated-snapshots",
        )
    run.progress.note(f"{image_id} is being made")
    return aws.wait(
        f"AMI {image_id}",
        lambda: _when_available(plan, aws, run, image_id, name),
        timeout=4 * 3600,
        hint="large first snapshots take long; the AMI was removed again",
    )


def _when_available(plan: Plan, aws: Aws, run: Run, image_id: str, name: str) -> Image | None:
    images = aws.ec2.describe_images(ImageIds=[image_id])["Images"]
    if not images:
        return None
    facts = images[0]
    root = _root(facts)
    if facts["State"] == "failed":
        reason = facts.get("StateReason", {}).get("Message", "no reason given")
        raise BakeError(f"AMI {image_id} failed: {reason}")
    if facts["State"] != "available" or not root.get("SnapshotId"):
        run.progress.status(_snapshot_progress(aws, root.get("SnapshotId")))
        return None
    # What was agreed about disks holds for the finished image, too, whatever the base AMI brought along.
    check_image(plan.facts, facts["BlockDeviceMappings"], facts["RootDeviceName"])
    return Image(image_id, name, root["SnapshotId"], root["VolumeSize"])


def _root(facts: Any) -> dict[str, Any]:
    for mapping in facts.get("BlockDeviceMappings", []):
        if mapping.get("DeviceName") == facts.get("RootDeviceName"):
            return dict(mapping.get("Ebs", {}))
    return {}


def _snapshot_progress(aws: Aws, snapshot: str | None) -> str:
    if not snapshot:
        return "the snapshot has not started yet"
    found = aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    return f"{snapshot} {found[0].get('Progress', '')}" if found else f"{snapshot}"


def remove(aws: Aws, image_id: str) -> None:
    """Deregister the AMI and delete its snapshots; one that is gone already is fine."""
    images = aws.ec2.describe_images(ImageIds=[image_id])["Images"]
    snapshots = [
        mapping["Ebs"]["SnapshotId"]
        for image in images
        for mapping in image.get("BlockDeviceMappings", [])
        if mapping.get("Ebs", {}).get("SnapshotId")
    ]
    if not images:
        return
    aws.ec2.deregister_image(ImageId=image_id)
    for snapshot in snapshots:
        aws.ec2.delete_snapshot(SnapshotId=snapshot)
