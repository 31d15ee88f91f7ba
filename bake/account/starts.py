"""Ask EC2 for the newest AMI of a profile whose start was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bake.account.answers import Unanswered, ask
from bake.account.baked import COPY_TAG
from bake.aws import Aws
from bake.creation import tag_of
from bake.hydration import TAG, Measured, parse
from bake.image import images_of, root_of
from bake.profile import Profile


@dataclass(frozen=True)
class Started:
    """An AMI and what its boot check measured. `snapshot` is its root volume's."""

    image: str
    created: str
    measured: Measured
    snapshot: str = ""


@dataclass(frozen=True)
class StartFacts:
    """What is known of starts of the profile's AMIs.

    `newest` is None where none was measured yet. `fast_restored` are the zones in which the snapshot of the
    newest AMI has Fast Snapshot Restore; that is asked only where the profile asks for a rate.
    """

    newest: Started | Unanswered | None = None
    fast_restored: tuple[str, ...] | Unanswered = ()


def ask_starts(profile: Profile, aws: Aws) -> StartFacts:
    """Ask for the AMIs; with a VolumeInitializationRate, for their Fast Snapshot Restore, too."""
    found = ask(lambda: images_of(aws, profile.name))
    if isinstance(found, Unanswered):
        return StartFacts(found)
    own = [image for image in found if not tag_of(image.get("Tags"), COPY_TAG)]
    snapshot = str(root_of(own[-1]).get("SnapshotId", "")) if own else ""
    if profile.cold_start.volume_initialization_rate is None or not snapshot:
        return StartFacts(_newest(own))
    return StartFacts(_newest(own), _fast_restored(snapshot, aws))


def _newest(images: list[Any]) -> Started | None:
    """Of the newest first: a slow start that left its AMI unproven was measured all the same."""
    for image in reversed(images):
        if (measured := parse(tag_of(image.get("Tags"), TAG))) is not None:
            snapshot = str(root_of(image).get("SnapshotId", ""))
            return Started(image["ImageId"], image.get("CreationDate", ""), measured, snapshot)
    return None


def _fast_restored(snapshot: str, aws: Aws) -> tuple[str, ...] | Unanswered:
    answer = ask(
        lambda: aws.ec2.describe_fast_snapshot_restores(
            Filters=[{"Name": "snapshot-id", "Values": [snapshot]}]
        )["FastSnapshotRestores"]
    )
    if isinstance(answer, Unanswered):
        return answer
    on = (one["AvailabilityZone"] for one in answer if one["State"] in ("enabling", "optimizing", "enabled"))
    return tuple(sorted(on))
