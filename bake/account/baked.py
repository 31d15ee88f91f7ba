"""Ask EC2 for the AMIs that bakes of a profile made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bake.aws import Aws
from bake.image import images_of, state_of
from bake.profile import Profile

COPY_TAG = "bake:copy-of"
"""Tag of an AMI that is a copy of one in another region, or of another key."""


@dataclass(frozen=True)
class Baked:
    """An AMI that a bake made: `created` is RFC 3339, `available` EC2's state, `state` the tags'."""

    id: str
    created: str
    available: bool
    state: str
    tags: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    """The AMI that its builder was launched from, where EC2 tells that."""

    @property
    def good(self) -> bool:
        """Whether it may be used: its boot check passed, nobody revoked it, and it can be launched."""
        return self.available and self.state == "good"


def ask_images(profile: Profile, aws: Aws) -> tuple[Baked, ...]:
    """The profile's AMIs in the builder's region, oldest first; copies are left out."""
    found = []
    for image in images_of(aws, profile.name):
        tags = {tag["Key"]: tag["Value"] for tag in image.get("Tags", [])}
        if COPY_TAG not in tags:
            available, base = image.get("State") == "available", image.get("SourceImageId", "")
            created, state = image.get("CreationDate", ""), state_of(image)
            found.append(Baked(image["ImageId"], created, available, state, tags, base))
    return tuple(found)
