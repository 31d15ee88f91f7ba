"""AMIs: what becomes of one is in its tags, and it is removed together with its snapshots."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from bake.aws import Aws
from bake.creation import LOOKED_FOR, tag_of, unless_absent

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

STATE_TAG, EXPIRES_TAG = "bake:state", "bake:expires"
# What an AMI demands of its instances' metadata: IMDSv2. AWS has no other value, and no way back.
IMDSV2: Literal["v2.0"] = "v2.0"
# Seconds in which a change of an AMI shows up in DescribeImages.
SHOWN = 60.0
State = Literal["draft", "unproven", "good"]


@dataclass(frozen=True)
class Image:
    """An available AMI and its root snapshot; `root_gib` is the snapshot's volume size.

    `imds_support` is "v2.0" where its instances need IMDSv2 unless their launch says otherwise, else None.
    """

    id: str
    name: str
    snapshot: str
    root_gib: int
    imds_support: str | None = None


def describe_image(aws: Aws, image_id: str) -> ImageTypeDef | None:
    """DescribeImages for one; None where EC2 does not know it, and it is no fresh id any more."""
    images = unless_absent(lambda: aws.ec2.describe_images(ImageIds=[image_id])["Images"])
    return images[0] if images else None


def root_of(facts: Any) -> dict[str, Any]:
    """The EBS mapping of an AMI's root device; empty while the AMI is pending."""
    for mapping in facts.get("BlockDeviceMappings", []):
        if mapping.get("DeviceName") == facts.get("RootDeviceName"):
            return dict(mapping.get("Ebs", {}))
    return {}


def image_of(facts: ImageTypeDef) -> Image:
    """An available AMI as DescribeImages has it."""
    root = root_of(facts)
    support = facts.get("ImdsSupport")
    return Image(facts["ImageId"], facts["Name"], root["SnapshotId"], root["VolumeSize"], support)


def require_imdsv2(aws: Aws, image: Image) -> Image:
    """Have instances of an available AMI need IMDSv2; return it as DescribeImages shows it then."""
    if image.imds_support == IMDSV2:
        return image
    aws.ec2.modify_image_attribute(ImageId=image.id, ImdsSupport={"Value": IMDSV2})

    def shown() -> Image | None:
        facts = describe_image(aws, image.id)
        return image_of(facts) if facts and facts.get("ImdsSupport") == IMDSV2 else None

    return aws.wait(f"ImdsSupport={IMDSV2} of {image.id}", shown, timeout=SHOWN)


def require_imdsv2_by_hand(aws: Aws, image: Image) -> str:
    """The command that does the same."""
    return aws.command("ec2", "modify-image-attribute", "--image-id", image.id, "--imds-support", IMDSV2)


def images_of(aws: Aws, profile: str) -> list[ImageTypeDef]:
    """The account's AMIs of a profile, oldest first."""
    filters: Any = [{"Name": "tag:bake:profile", "Values": [profile]}]
    found = aws.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    return sorted(found, key=lambda image: image["CreationDate"])


def state_of(facts: ImageTypeDef) -> str:
    """What became of an AMI; one that was baked before there was such a tag counts as good."""
    return tag_of(facts.get("Tags"), STATE_TAG) or "good"


def mark(aws: Aws, image: Image, state: State) -> None:
    """Say in the tags of an AMI and its snapshot what became of it; a finished one does not expire."""
    both = [image.id, image.snapshot]
    aws.ec2.create_tags(Resources=both, Tags=[{"Key": STATE_TAG, "Value": state}])
    aws.ec2.delete_tags(Resources=both, Tags=[{"Key": EXPIRES_TAG}])


def mark_by_hand(aws: Aws, image: Image, state: State) -> str:
    """The command that does the same."""
    tags = ("--tags", f"Key={STATE_TAG},Value={state}")
    return aws.command("ec2", "create-tags", "--resources", image.id, image.snapshot, *tags)


def in_use(aws: Aws, image_id: str) -> bool:
    """Whether instances run from an AMI, or may be started again from it."""
    filters: Any = [
        {"Name": "image-id", "Values": [image_id]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    return bool(aws.ec2.describe_instances(Filters=filters)["Reservations"])


def remove(aws: Aws, image_id: str, *, run: str = "", name: str = "") -> None:
    """Deregister an AMI and delete its snapshots; what is gone already is fine.

    A pending AMI may not tell its snapshots yet: those with the tags of `run` and `name`, which are the
    AMI's own unless given, are its snapshots, too.
    """
    facts = describe_image(aws, image_id)
    tags = facts.get("Tags") if facts else None
    run, name = run or tag_of(tags), name or tag_of(tags, "Name")
    snapshots = _mapped(facts)
    if facts is not None:
        unless_absent(lambda: aws.ec2.deregister_image(ImageId=image_id))
    pending = facts is not None and facts["State"] == "pending" and not snapshots
    for snapshot in snapshots | _tagged(aws, run, name, seconds=LOOKED_FOR if pending else 0):
        unless_absent(partial(aws.ec2.delete_snapshot, SnapshotId=snapshot))


def remove_by_hand(aws: Aws, image_id: str) -> str:
    """The command that does the same."""
    command = aws.command("ec2", "deregister-image", "--delete-associated-snapshots", "--image-id")
    return f"{command} {image_id}"


def _mapped(facts: Any) -> set[str]:
    mappings = facts.get("BlockDeviceMappings", []) if facts else []
    return {mapping["Ebs"]["SnapshotId"] for mapping in mappings if mapping.get("Ebs", {}).get("SnapshotId")}


def _tagged(aws: Aws, run: str, name: str, *, seconds: float) -> set[str]:
    """The snapshots with these tags; where they must show up, they are looked for a while."""
    if not run or not name:
        return set()
    filters: Any = [{"Name": "tag:bake:run", "Values": [run]}, {"Name": "tag:Name", "Values": [name]}]
    deadline = time.monotonic() + seconds
    while True:
        found = aws.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        if found or time.monotonic() >= deadline:
            return {snapshot["SnapshotId"] for snapshot in found}
        time.sleep(1)
