"""Revoke an AMI: mark it, so that nothing serves it any more, then disable it, so that nothing launches it.

It stays, with its snapshots, for whoever asks what was wrong; instances that run go on. What is done already
is left alone, so a second run completes one that was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bake.aws import Aws
from bake.creation import RUN_TAG, tag_of, unless_absent
from bake.errors import BakeError, UsageError
from bake.image import BECAUSE_TAG, describe_image, mark_revoked, mark_snapshots_revoked, state_of
from bake.publish import uses
from bake.publish.channels import Channel
from bake.publish.places import Place
from bake.publish.uses import Use

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

Say = Callable[[str], None]
# Seconds until a disabled AMI is shown as such.
SHOWN = 60.0


@dataclass(frozen=True)
class Revoked:
    """An AMI of a region that is revoked now; `did` says what this run did for that, nothing if all was done.

    `used_by` is what would have launched it (with --force), `lost` the accounts that it was shared with.
    """

    region: str
    image: str
    because: str
    did: tuple[str, ...]
    used_by: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def revoke(
    places: Sequence[Place], because: str, known: Iterable[Channel], say: Say, *, force: bool = False
) -> list[Revoked]:
    """Revoke an AMI and its copies; the first place is the AMI's own.

    Everything is looked at before anything is written. Raises UsageError for an AMI that bake did not make,
    and BakeError, with all of them, if something would launch it, unless `force` is set.
    """
    if places[0].image is None:
        raise UsageError(
            f"there is no {places[0].asked} in {places[0].region}",
            hint="is it in another region or account, or was it deregistered? bake images lists them",
        )
    there = [(place.aws, check(place.image)) for place in places if place.image is not None]
    listed = list(known)
    found = [uses.uses(aws, facts["ImageId"], listed) for aws, facts in there]
    everything = [(aws, use) for (aws, _), some in zip(there, found, strict=True) for use in some]
    if everything and not force:
        raise _refusal(there[0][1]["ImageId"], everything)
    for aws, use in everything:
        say(f"{use.what} in {aws.region} goes by it: {use.breaks}")
    return [_revoke(aws, facts, because, some) for (aws, facts), some in zip(there, found, strict=True)]


def check(facts: ImageTypeDef) -> ImageTypeDef:
    """The AMI, if a bake made it and it is finished; UsageError otherwise."""
    if facts.get("State") not in ("available", "disabled"):
        raise UsageError(f"{facts['ImageId']} is {facts.get('State')}", hint="wait until it is available")
    if not tag_of(facts.get("Tags"), RUN_TAG):
        raise UsageError(
            f"{facts['ImageId']} was not made by bake: it has no tag {RUN_TAG}",
            hint="aws ec2 disable-image keeps others from being launched",
        )
    return facts


def _refusal(image: str, everything: list[tuple[Aws, Use]]) -> BakeError:
    told = [f"{aws.region}: {use}" for aws, use in everything]
    return BakeError(
        f"{image} is in use; nothing was changed. Without it:\n  " + "\n  ".join(told),
        hint="serve another AMI there first (bake rollback, bake promote); --force revokes it nevertheless",
    )


def _revoke(aws: Aws, facts: ImageTypeDef, because: str, used_by: Iterable[Use]) -> Revoked:
    """Mark an AMI, then disable it, as far as that is not done; the first reason stays.

    The snapshots are marked last, and each time: what matters is that nothing launches the AMI.
    """
    image, tags, did, lost = facts["ImageId"], facts.get("Tags"), [], []
    if state_of(facts) != "revoked" or not tag_of(tags, BECAUSE_TAG):
        because = tag_of(tags, BECAUSE_TAG) or because
        mark_revoked(aws, facts, because)
        did.append("marked")
    else:
        because = tag_of(tags, BECAUSE_TAG)
    if facts.get("State") != "disabled":
        lost = _shared_with(aws, image)
        aws.ec2.disable_image(ImageId=image)
        aws.wait(f"{image} as disabled", lambda: _shown(aws, image), timeout=SHOWN)
        did.append("disabled")
    mark_snapshots_revoked(aws, facts, because)
    return Revoked(aws.region, image, because, tuple(did), tuple(map(str, used_by)), tuple(lost))


def _shown(aws: Aws, image: str) -> bool | None:
    now = describe_image(aws, image, disabled=True)
    return True if now is None or now.get("State") == "disabled" else None


def _shared_with(aws: Aws, image: str) -> list[str]:
    """The accounts and organizations that lose the AMI with its launch permissions."""
    asked = unless_absent(
        lambda: aws.ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")
    )
    permissions = asked.get("LaunchPermissions", []) if asked else []
    return sorted(str(value) for one in permissions for value in one.values())
