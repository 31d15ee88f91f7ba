"""The regions that a channel is served in, each with its own copy of an AMI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bake.aws import Aws
from bake.image import describe_image
from bake.publish.copies import COPY_TAG

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef


@dataclass(frozen=True)
class Place:
    """A region, with clients in it, and the AMI that was `asked` for, or its copy; None if there is none."""

    aws: Aws
    asked: str
    image: ImageTypeDef | None

    @property
    def region(self) -> str:
        """The region's name."""
        return self.aws.region


def find(aws: Aws, image: str, regions: Iterable[str] = ()) -> list[Place]:
    """An AMI in the region of `aws`, and its copy in each of the other regions."""
    home = Place(aws, image, describe_image(aws, image, disabled=True))
    others = [one for one in dict.fromkeys(regions) if one != aws.region]
    return [home, *(_copy(aws.elsewhere(region).patiently(), image) for region in others)]


def _copy(aws: Aws, image: str) -> Place:
    """The newest copy of an AMI in another region, also a disabled one."""
    filters: Any = [{"Name": f"tag:{COPY_TAG}", "Values": [f"{image} *"]}]
    found = aws.ec2.describe_images(Owners=["self"], Filters=filters, IncludeDisabled=True)["Images"]
    newest = sorted(found, key=lambda one: one["CreationDate"])
    return Place(aws, image, newest[-1] if newest else None)
