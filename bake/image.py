"""AMIs: read and mark their state in tags, require IMDSv2, remove them with their snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from bake.aws import Aws
from bake.creation import APPEARS_WITHIN, EXPIRES_TAG, RUN_TAG, tag_of, time_of, unless_absent

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

STATE_TAG = "bake:state"
BECAUSE_TAG = "bake:because"
PROFILE_TAG = "bake:profile"
VENUE_TAG = "bake:venue"
# ImdsSupport of an AMI. AWS has no other value, and it can't be unset.
IMDSV2: Literal["v2.0"] = "v2.0"
# Seconds until a change of an AMI appears in DescribeImages.
SHOWN = 60.0
State = Literal["draft", "unproven", "good", "revoked"]


@dataclass(frozen=True)
class Image:
    """An available AMI and its root snapshot; `root_gib` is the snapshot's volume size.

    `snapshots` are all of its snapshots, where the base AMI has more disks than the root.
    `imds_support` is "v2.0" where its instances need IMDSv2 unless their launch says otherwise, else None.
    """

    id: str
    name: str
    snapshot: str
    root_gib: int
    imds_support: str | None = None
    snapshots: tuple[str, ...] = ()


def describe_image(aws: Aws, image_id: str, *, disabled: bool = False) -> ImageTypeDef | None:
    """DescribeImages for one AMI; None if EC2 does not know it, unless the id is new.

    A disabled AMI is shown only where it is asked for.
    """
    more: Any = {"IncludeDisabled": True} if disabled else {}
    images = unless_absent(lambda: aws.ec2.describe_images(ImageIds=[image_id], **more)["Images"])
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
    support, all_of_it = facts.get("ImdsSupport"), tuple(sorted(_mapped(facts)))
    return Image(facts["ImageId"], facts["Name"], root["SnapshotId"], root["VolumeSize"], support, all_of_it)


def require_imdsv2(aws: Aws, image: Image) -> Image:
    """Require IMDSv2 of an available AMI's instances; return the AMI as DescribeImages then shows it."""
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


def images_of(aws: Aws, profile: str, *, disabled: bool = False) -> list[ImageTypeDef]:
    """The account's AMIs of a profile, oldest first; those that are disabled only if asked for."""
    return _listed(aws, {"Name": f"tag:{PROFILE_TAG}", "Values": [profile]}, disabled)


def baked(aws: Aws, *, disabled: bool = False) -> list[ImageTypeDef]:
    """The account's AMIs of all profiles, oldest first; those that are disabled only if asked for."""
    return _listed(aws, {"Name": "tag-key", "Values": [PROFILE_TAG]}, disabled)


def _listed(aws: Aws, wanted: Any, disabled: bool) -> list[ImageTypeDef]:
    asked: Any = {"Owners": ["self"], "Filters": [wanted], **({"IncludeDisabled": True} if disabled else {})}
    found = aws.ec2.describe_images(**asked)["Images"]
    # EC2 counts whole seconds; a bake's names go by its time, so that both orders of one second agree.
    return sorted(found, key=lambda image: (image["CreationDate"], image["Name"]))


def unfit(facts: ImageTypeDef, *, profile: str, venue: str, now: datetime | None = None) -> str:
    """Why an AMI is not fit to be served to a profile's workers at a venue; empty if it is.

    `venue` is AWS or REHEARSAL. With `now`, an AMI whose deprecation has come is not fit either.
    """
    tags = facts.get("Tags")
    if not tag_of(tags, RUN_TAG) or not tag_of(tags, PROFILE_TAG):
        return "bake did not make it"
    state, because = state_of(facts), tag_of(tags, BECAUSE_TAG)
    if state == "revoked":
        return f"it is revoked: {because}" if because else "it is revoked"
    if state != "good":
        return f"it is {state}, not good"
    if (other := tag_of(tags, PROFILE_TAG)) != profile:
        return f"it was baked from the profile {other}, not {profile}"
    if (baked_at := tag_of(tags, VENUE_TAG) or "AWS") != venue:
        return f"it was baked in {baked_at}: it is not for {venue}"
    if (availability := facts.get("State")) != "available":
        return f"EC2 says that it is {availability}"
    ends = time_of(facts.get("DeprecationTime", ""))
    if now is not None and ends is not None and ends <= now:
        return f"it is deprecated since {facts['DeprecationTime']}"
    return ""


def state_of(facts: ImageTypeDef) -> str:
    """The state in an AMI's tags; an AMI from before there was such a tag counts as good."""
    return tag_of(facts.get("Tags"), STATE_TAG) or "good"


def mark(aws: Aws, image: Image, state: State) -> None:
    """Write the state into the tags of an AMI and its snapshots, and remove their expiry."""
    _mark(aws, _all_of(image), state)


def mark_pending(aws: Aws, facts: ImageTypeDef, state: State) -> None:
    """The same for an AMI that is still being made, and the snapshots that it tells already."""
    _mark(aws, [facts["ImageId"], *sorted(_mapped(facts))], state)


def _mark(aws: Aws, ids: list[str], state: State) -> None:
    aws.ec2.create_tags(Resources=ids, Tags=[{"Key": STATE_TAG, "Value": state}])
    aws.ec2.delete_tags(Resources=ids, Tags=[{"Key": EXPIRES_TAG}])


def mark_revoked(aws: Aws, facts: ImageTypeDef, because: str) -> None:
    """Mark an AMI as revoked, with the reason."""
    _tag_revoked(aws, [facts["ImageId"]], because)


def mark_snapshots_revoked(aws: Aws, facts: ImageTypeDef, because: str) -> None:
    """The same for its snapshots."""
    _tag_revoked(aws, sorted(_mapped(facts)), because)


def _tag_revoked(aws: Aws, ids: list[str], because: str) -> None:
    tags: Any = [{"Key": STATE_TAG, "Value": "revoked"}, {"Key": BECAUSE_TAG, "Value": because}]
    aws.ec2.create_tags(Resources=ids, Tags=tags)


def _all_of(image: Image) -> list[str]:
    return [image.id, *dict.fromkeys((image.snapshot, *image.snapshots))]


def mark_by_hand(aws: Aws, image: Image, state: State) -> str:
    """The command that does the same."""
    tags = ("--tags", f"Key={STATE_TAG},Value={state}")
    return aws.command("ec2", "create-tags", "--resources", *_all_of(image), *tags)


def is_protected(facts: Any) -> bool:
    """Whether an AMI can't be deregistered: DescribeImages tells "disabled", or how it is enabled."""
    return str(facts.get("DeregistrationProtection", "")).startswith("enabled")


def lift_protection(aws: Aws, facts: Any) -> None:
    """Let an AMI be deregistered that is protected; only for what is removed right after."""
    if is_protected(facts):
        image = facts["ImageId"]
        unless_absent(lambda: aws.ec2.disable_image_deregistration_protection(ImageId=image))


def remove(aws: Aws, image_id: str, *, run: str = "", name: str = "") -> None:
    """Deregister an AMI, also a protected one, and delete its snapshots, as far as they still exist.

    A pending AMI may not tell its snapshots yet: those with the tags of `run` and `name`, which are the
    AMI's own unless given, are its snapshots, too.
    """
    facts = describe_image(aws, image_id, disabled=True)
    tags = facts.get("Tags") if facts else None
    run, name = run or tag_of(tags), name or tag_of(tags, "Name")
    snapshots = _mapped(facts)
    if facts is not None:
        lift_protection(aws, facts)
        unless_absent(lambda: aws.ec2.deregister_image(ImageId=image_id))
    pending = facts is not None and facts["State"] == "pending" and not snapshots
    for snapshot in snapshots | _tagged(aws, run, name, seconds=APPEARS_WITHIN if pending else 0):
        unless_absent(partial(aws.ec2.delete_snapshot, SnapshotId=snapshot))


def remove_by_hand(aws: Aws, image_id: str) -> str:
    """The command that does the same."""
    command = aws.command("ec2", "deregister-image", "--delete-associated-snapshots", "--image-id")
    return f"{command} {image_id}"


def _mapped(facts: Any) -> set[str]:
    mappings = facts.get("BlockDeviceMappings", []) if facts else []
    return {mapping["Ebs"]["SnapshotId"] for mapping in mappings if mapping.get("Ebs", {}).get("SnapshotId")}


def _tagged(aws: Aws, run: str, name: str, *, seconds: float) -> set[str]:
    """The snapshots with these tags; wait for them for `seconds`."""
    if not run or not name:
        return set()
    filters: Any = [{"Name": "tag:bake:run", "Values": [run]}, {"Name": "tag:Name", "Values": [name]}]
    with aws.tally.waiting(f"the snapshots of {name}", seconds) as wait:
        while True:
            found = aws.ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
            if found or wait.seconds >= seconds:
                return {snapshot["SnapshotId"] for snapshot in found}
            wait.pause(1)
