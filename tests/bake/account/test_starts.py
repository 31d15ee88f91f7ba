"""Which earlier image tells the plan how fast its volume was filled."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from bake.account.answers import Unanswered
from bake.account.starts import Started, ask_starts
from bake.aws import Aws
from bake.hydration import TAG, Measured
from bake.profile import Profile
from bake.profile.cold_start import ColdStart

from ..answers import answered

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

SLOW, FAST = Measured(50.0, 34_000_000_000, volume="gp3"), Measured(93.1, 34_000_000_000, volume="gp3")


@dataclass
class Images:
    """AMIs of a profile of the test's own."""

    aws: Aws
    profile: Profile
    made: list[str] = field(default_factory=list)

    def make(self, **tags: str) -> str:
        name = f"{self.profile.name}-{len(self.made)}"
        snapshot = self.aws.ec2.create_snapshot(
            VolumeId=self.aws.ec2.create_volume(AvailabilityZone="eu-north-1a", Size=1)["VolumeId"]
        )["SnapshotId"]
        image = self.aws.ec2.register_image(
            Name=name,
            RootDeviceName="/dev/sda1",
            BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
        )["ImageId"]
        given: Any = [
            {"Key": key, "Value": value} for key, value in {"bake:profile": self.profile.name, **tags}.items()
        ]
        self.aws.ec2.create_tags(Resources=[image], Tags=given)
        self.made.append(image)
        return image


@pytest.fixture
def images(plan_cloud: PlanCloud) -> Iterator[Images]:
    profile = plan_cloud.profile().model_copy(update={"name": f"p{secrets.token_hex(4)}"})
    found = Images(plan_cloud.aws(), profile)
    yield found
    for image in found.made:
        found.aws.ec2.deregister_image(ImageId=image)


def test_the_newest_image_that_was_measured_counts(images: Images) -> None:
    images.make(**{TAG: SLOW.text()})
    newest = images.make(**{TAG: FAST.text()})
    images.make()
    images.make(**{TAG: "very fast"})
    images.make(**{TAG: SLOW.text(), "bake:copy-of": "ami-1 in eu-west-1"})
    found = ask_starts(images.profile, images.aws).newest
    assert isinstance(found, Started)
    assert (found.image, found.measured) == (newest, FAST)
    assert found.snapshot.startswith("snap-")


def test_an_image_that_stayed_unproven_was_measured_all_the_same(images: Images) -> None:
    image = images.make(**{TAG: SLOW.text(), "bake:state": "unproven"})
    found = ask_starts(images.profile, images.aws).newest
    assert isinstance(found, Started) and found.image == image


def test_without_a_measured_image_nothing_is_known(images: Images) -> None:
    images.make()
    assert ask_starts(images.profile, images.aws).newest is None


def test_a_right_that_is_missing_leaves_it_open(plan_cloud: PlanCloud, images: Images) -> None:
    plan_cloud.faults.plant("ec2", "DescribeImages", "refuse", code="UnauthorizedOperation", times=None)
    assert ask_starts(images.profile, images.aws).newest == Unanswered("AWS answers UnauthorizedOperation")


def test_fast_snapshot_restore_is_asked_of_a_profile_with_a_rate(images: Images) -> None:
    images.make()
    rated = images.profile.model_copy(update={"cold_start": ColdStart(volume_initialization_rate=300)})
    there = [
        {"SnapshotId": "snap-1", "AvailabilityZone": f"eu-north-1{zone}", "State": state}
        for zone, state in (("c", "enabled"), ("a", "optimizing"), ("b", "disabled"))
    ]
    with answered(images.aws.ec2, "DescribeFastSnapshotRestores", {"FastSnapshotRestores": there}) as sent:
        assert ask_starts(images.profile, images.aws).fast_restored == ()
        assert sent == []
        assert ask_starts(rated, images.aws).fast_restored == ("eu-north-1a", "eu-north-1c")
    assert sent[0]["Filter.1.Name"] == "snapshot-id"
