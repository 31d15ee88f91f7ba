"""Copies of a good AMI in other regions, each a draft until it is available, needs IMDSv2 and is shared.

A copy is known by its tag `bake:copy-of`, and has its source's name, which is unique in its region: a second
run goes on with one that is there, and copies anew what has failed or was deregistered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bake.aws import Aws, ClientError, error_code
from bake.creation import APPEARS_WITHIN, EXPIRES_TAG, stamp, tag_of
from bake.errors import BakeError
from bake.image import (
    STATE_TAG,
    Image,
    describe_image,
    image_of,
    mark,
    remove,
    remove_by_hand,
    require_imdsv2,
    root_of,
    state_of,
)
from bake.publish.wanted import NotOurs, Wanted

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

COPY_TAG = "bake:copy-of"
# Seconds that a copy may take: a large one takes hours.
MADE = 12 * 3600
# Until then a copy whose bake died is left alone; afterwards a sweep removes it.
LEFT_ALONE = timedelta(hours=24)
# States of an AMI that becomes no copy any more.
_ENDED = ("failed", "error", "invalid", "deregistered", "disabled")


@dataclass(frozen=True)
class Source:
    """The AMI that is copied: its region, and what DescribeImages says of it."""

    region: str
    facts: Any

    @property
    def id(self) -> str:
        """The AMI's id."""
        return str(self.facts["ImageId"])

    @property
    def mark(self) -> str:
        """What the tag of its copies says."""
        return f"{self.id} {self.region}"


def of(there: Aws, source: str) -> list[ImageTypeDef]:
    """The copies of an AMI in a region, by their tag; oldest first."""
    filters: Any = [{"Name": f"tag:{COPY_TAG}", "Values": [f"{source} *"]}]
    found = there.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    return sorted(found, key=lambda one: one["CreationDate"])


def ensure(there: Aws, source: Source, wanted: Wanted, accounts: Sequence[str], run: str) -> Image:
    """Copy the source to a region, unless it is there; return the copy once it is good.

    Raises BakeError for a copy that fails, which is removed, and NotOurs if another AMI has its name.
    """
    image_id = _there(there, source) or _copy(there, source, wanted, run)
    image = there.wait(f"{image_id} in {there.region}", lambda: _available(there, image_id), timeout=MADE)
    image = require_imdsv2(there, image)
    share(there, image, accounts)
    facts = describe_image(there, image.id)
    if facts is None or state_of(facts) != "good":
        mark(there, image, "good")
    return image


def share(aws: Aws, image: Image, accounts: Sequence[str]) -> None:
    """Let accounts launch an AMI and use its snapshots; never the public."""
    if not accounts:
        return
    permission: Any = {"Add": [{"UserId": account} for account in accounts]}
    aws.ec2.modify_image_attribute(ImageId=image.id, LaunchPermission=permission)
    for snapshot in image.snapshots or (image.snapshot,):
        aws.ec2.modify_snapshot_attribute(
            SnapshotId=snapshot,
            Attribute="createVolumePermission",
            OperationType="add",
            UserIds=list(accounts),
        )


def _there(there: Aws, source: Source) -> str | None:
    """A copy of an earlier attempt; what became of nothing is removed."""
    living = None
    for facts in of(there, source.id):
        if facts["State"] in _ENDED:
            remove(there, facts["ImageId"])
        else:
            living = facts["ImageId"]
    return living


def _copy(there: Aws, source: Source, wanted: Wanted, run: str) -> str:
    """Send CopyImage; one whose answer was lost is found by its name."""
    key = wanted.keys.get(there.region)
    encryption: Any = {"Encrypted": True, "KmsKeyId": key} if key else {}
    tags: Any = _tags(there, source)
    try:
        answer = there.ec2.copy_image(
            Name=source.facts["Name"],
            Description=source.facts.get("Description", ""),
            SourceImageId=source.id,
            SourceRegion=source.region,
            ClientToken=f"bake-{run}-{source.id}-{there.region}",
            TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")],
            **encryption,
        )
    except ClientError as error:
        if error_code(error) != "InvalidAMIName.Duplicate":
            raise
        return _named(there, source, error)
    return str(answer["ImageId"])


def _named(there: Aws, source: Source, error: Exception) -> str:
    """The AMI that has the copy's name, if it is this copy."""
    filters: Any = [{"Name": "name", "Values": [source.facts["Name"]]}]
    with there.tally.waiting(f"{source.facts['Name']} to appear", APPEARS_WITHIN) as wait:
        while True:
            found = there.ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
            if found or wait.seconds > APPEARS_WITHIN:
                break
            wait.pause(1)
    if found and tag_of(found[0].get("Tags"), COPY_TAG) == source.mark:
        return str(found[0]["ImageId"])
    who = found[0]["ImageId"] if found else "an AMI"
    raise NotOurs(
        f"{who} in {there.region} is called {source.facts['Name']!r} already, and is no copy of {source.id}",
        hint="rename nothing: remove that AMI if nobody needs it, or take its region out of publish.regions",
    ) from error


def _tags(there: Aws, source: Source) -> list[dict[str, str]]:
    """The source's own tags, as those of a draft, and what the copy is of."""
    kept = {tag["Key"]: tag["Value"] for tag in source.facts.get("Tags", []) if tag["Key"][:4] != "aws:"}
    kept |= {STATE_TAG: "draft", EXPIRES_TAG: stamp(there.now() + LEFT_ALONE), COPY_TAG: source.mark}
    return [{"Key": key, "Value": value} for key, value in kept.items()]


def _available(there: Aws, image_id: str) -> Image | None:
    facts = describe_image(there, image_id, disabled=True)
    if facts is None:
        if there.fresh.any(iter([image_id])):
            return None
        raise BakeError(
            f"{image_id} in {there.region} is gone",
            hint="somebody deregistered the copy: call `bake publish` again, which copies anew",
        )
    if facts["State"] in _ENDED:
        reason = facts.get("StateReason", {}).get("Message", "no reason given")
        try:
            remove(there, image_id)
        except ClientError as error:
            reason += f"; it could not be removed ({error_code(error)}): {remove_by_hand(there, image_id)}"
        raise BakeError(
            f"the copy {image_id} in {there.region} failed: {reason}",
            hint="a key that the copy may not use is the usual reason (docs/aws.md)",
        )
    if facts["State"] != "available" or not root_of(facts).get("SnapshotId"):
        return None
    return image_of(facts)


def by_hand(there: Aws, source: Source, wanted: Wanted) -> str:
    """The command that copies the AMI; `bake publish` takes such a copy over by its tag."""
    key = wanted.keys.get(there.region)
    tags = f"ResourceType=image,Tags=[{{Key={COPY_TAG},Value={source.mark}}}]"
    what = ("--name", source.facts["Name"], "--source-image-id", source.id, "--source-region", source.region)
    encryption = ("--encrypted", "--kms-key-id", key) if key else ()
    return there.command("ec2", "copy-image", *what, *encryption, "--tag-specifications", tags)
