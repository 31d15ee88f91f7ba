"""What an AMI itself says and enforces: its deprecation, protection, watermark and instance types.

Each is looked up first, so that a second call changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bake.aws import Aws
from bake.creation import unless_absent
from bake.errors import BakeError
from bake.image import describe_image, is_protected
from bake.publish.wanted import Wanted

# Seconds until a change of an AMI appears in DescribeImages.
SHOWN = 60.0


@dataclass(frozen=True)
class Mark:
    """One mark: its name, its value in words, whether DescribeImages shows it, how to set it and by hand."""

    name: str
    value: str
    there: Callable[[Any], bool]
    put: Callable[[], object]
    by_hand: str


def marks(aws: Aws, facts: Any, wanted: Wanted) -> Iterator[Mark]:
    """The marks that an AMI is to have; `facts` are DescribeImages' of it."""
    image = facts["ImageId"]
    if wanted.deprecate_after is not None:
        yield _deprecation(aws, image, _created(facts) + wanted.deprecate_after)
    if wanted.protect:
        yield Mark(
            "deregistration protection",
            "without cooldown",
            is_protected,
            lambda: aws.ec2.enable_image_deregistration_protection(ImageId=image, WithCooldown=False),
            aws.command("ec2", "enable-image-deregistration-protection", "--image-id", image),
        )
    if wanted.watermark is not None:
        yield _watermark(aws, image, facts["OwnerId"], wanted.watermark)
    if wanted.types:
        yield _types(aws, image, wanted.types)


def ensure(aws: Aws, image: str, mark: Mark) -> None:
    """Set a mark unless it is there; wait until EC2 shows it.

    Raises BakeError if the AMI is gone, and what EC2 answers.
    """
    facts = describe_image(aws, image)
    if facts is None:
        raise BakeError(f"{image} is gone from {aws.region}", hint="somebody deregistered it: bake again")
    if mark.there(facts):
        return
    mark.put()

    def shown() -> bool | None:
        now = describe_image(aws, image)
        return True if now is not None and mark.there(now) else None

    aws.wait(f"{mark.name} of {image}", shown, timeout=SHOWN)


def take_off(aws: Aws, image: str, name: str) -> bool:
    """Take the account's own watermark of this name off an AMI that inherited it; whether it had it.

    Those of other accounts stay: what they say is for their owners.
    """
    facts = describe_image(aws, image)
    key = f"{facts['OwnerId']}:{name}" if facts else ""
    if facts is None or not _has(facts, key):
        return False
    unless_absent(lambda: aws.ec2.detach_image_watermark(ImageId=image, WatermarkKey=key))
    return True


def take_off_by_hand(aws: Aws, image: str, name: str) -> str:
    """The command that does the same; the account's id is for a person to fill in."""
    return aws.command(
        "ec2", "detach-image-watermark", "--image-id", image, "--watermark-key", f"ACCOUNT:{name}"
    )


def _watermark(aws: Aws, image: str, owner: str, name: str) -> Mark:
    return Mark(
        "watermark",
        name,
        lambda facts: _has(facts, f"{owner}:{name}"),
        lambda: aws.ec2.attach_image_watermark(ImageId=image, WatermarkName=name),
        aws.command("ec2", "attach-image-watermark", "--image-id", image, "--watermark-name", name),
    )


def _has(facts: Any, key: str) -> bool:
    return key in [one.get("WatermarkKey") for one in facts.get("ImageWatermarks", [])]


def _types(aws: Aws, image: str, types: tuple[str, ...]) -> Mark:
    specification: Any = {"SupportedInstanceTypes": list(types)}

    def there(facts: Any) -> bool:
        found = facts.get("InstanceTypeSpecification") or {}
        listed = sorted(one["InstanceType"] for one in found.get("SupportedInstanceTypes", []))
        return listed == sorted(types) and not found.get("UnsupportedInstanceTypes")

    return Mark(
        "instance types",
        ", ".join(types),
        there,
        lambda: aws.ec2.replace_image_instance_type_specification(
            ImageId=image, InstanceTypeSpecification=specification
        ),
        aws.command(
            "ec2",
            "replace-image-instance-type-specification",
            *("--image-id", image, "--instance-type-specification", json.dumps(specification)),
        ),
    )


def _deprecation(aws: Aws, image: str, at: datetime) -> Mark:
    # EC2 rounds to minutes, and takes no date in the past.
    at = at.replace(second=0, microsecond=0)
    shown = f"{at:%Y-%m-%dT%H:%M:%SZ}"

    def there(facts: Any) -> bool:
        told = facts.get("DeprecationTime")
        return told is not None and abs(_time(told) - at) <= timedelta(minutes=1)

    def put() -> None:
        if at <= aws.now():
            raise BakeError(f"{image} would be deprecated from {shown} on, which is over: it is too old")
        aws.ec2.enable_image_deprecation(ImageId=image, DeprecateAt=at)

    by_hand = aws.command("ec2", "enable-image-deprecation", "--image-id", image, "--deprecate-at", shown)
    return Mark("deprecation", f"from {shown} on", there, put, by_hand)


def _created(facts: Any) -> datetime:
    return _time(facts["CreationDate"])


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
