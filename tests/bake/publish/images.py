"""Good AMIs of bakes in the recorded account, and what is looked up of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bake.aws import Aws
from bake.creation import tag_of
from bake.image import Image, describe_image, image_of
from bake.publish.publishing import Publishing
from bake.publish.wanted import Published, Wanted
from tests.patient import usable

COPIED, THIRD = "eu-west-1", "eu-central-1"


@dataclass
class Good:
    """A good AMI of a bake of `profile`, and clients with which no test meddles."""

    image: Image
    profile: str
    witness: Aws

    def publish(self, aws: Aws, accounts: tuple[str, ...] = (), **wanted: Any) -> list[Published]:
        """Publish it in a run of its own; what became of each part."""
        run = secrets.token_hex(6)
        return list(Publishing(aws, self.image, Wanted(**wanted), self.profile, accounts, run).all())

    def facts(self, region: str = "", image: str = "") -> Any:
        aws = self.witness.within(region) if region else self.witness
        return describe_image(aws, image or self.image.id)

    def copies(self, region: str) -> list[Any]:
        """All AMIs of a region that say they are copies of this one."""
        filters: Any = [{"Name": "tag:bake:copy-of", "Values": [f"{self.image.id} *"]}]
        there = self.witness.within(region)
        return list(there.ec2.describe_images(Owners=["self"], Filters=filters)["Images"])

    def tag(self, facts: Any, name: str) -> str:
        return tag_of(facts["Tags"], f"bake:{name}")


def good_image(witness: Aws, profile: str = "") -> Good:
    """An AMI as a bake leaves it."""
    profile = profile or f"p-{secrets.token_hex(4)}"
    name = f"{profile}-{secrets.token_hex(4)}"
    tags: Any = [
        {"Key": key, "Value": value}
        for key, value in {
            "Name": name,
            "bake:run": f"run-{name}",
            "bake:profile": profile,
            "bake:state": "good",
        }.items()
    ]
    ec2 = witness.ec2
    volume = ec2.create_volume(Size=1, AvailabilityZone=f"{witness.region}b", VolumeType="gp3")["VolumeId"]
    usable(witness, volume)
    snapshot = ec2.create_snapshot(
        VolumeId=volume, TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}]
    )["SnapshotId"]
    witness.wait(
        snapshot, lambda: "completed" in _state(ec2.describe_snapshots(SnapshotIds=[snapshot])) or None
    )
    image = ec2.register_image(
        Name=name,
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
        ImdsSupport="v2.0",
        TagSpecifications=[{"ResourceType": "image", "Tags": tags}],
    )["ImageId"]
    facts = describe_image(witness, image)
    assert facts is not None
    return Good(image_of(facts), profile, witness)


def younger(good: Good) -> Good:
    """A further one of its profile, of a later second: EC2 tells the age of an AMI no closer."""
    after = datetime.fromisoformat(good.facts()["CreationDate"]) + timedelta(seconds=1)
    good.witness.wait(good.image.id, lambda: datetime.now(UTC) >= after or None)
    return good_image(good.witness, good.profile)


def _state(answer: Any) -> set[str]:
    return {one["State"] for one in answer["Snapshots"]}


def states(rows: list[Published]) -> dict[tuple[str, str], str]:
    return {(row.what, row.region): row.state for row in rows}
