"""What a channel serves, as a group launches it: the AMI, and the template's numbered version with its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bake.aws import Aws
from bake.errors import UsageError
from bake.image import describe_image, unfit
from bake.publish import channels, launch_template
from bake.publish.channels import Channel
from bake.publish.launch_template import BY_PARAMETER, Version


@dataclass(frozen=True)
class Target:
    """An AMI, as DescribeImages tells it in `facts`, and the version of the template that names its id.

    `known` are all versions of the template by number.
    """

    channel: Channel
    image: str
    version: Version
    facts: Mapping[str, Any] = field(compare=False)
    known: Mapping[int, Version] = field(compare=False)

    def named(self, version: str) -> Version | None:
        """The version that a group names by a number, `$Default` or `$Latest`; None if it is not there."""
        if version == "$Latest":
            return self.known[max(self.known)]
        if version == "$Default":
            return next((one for one in self.known.values() if one.default), None)
        return self.known.get(int(version)) if version.isdecimal() else None


def find(aws: Aws, channel: Channel, venue: str) -> Target:
    """What the channel serves now; UsageError if that is nothing that a group can be moved to."""
    if channel.template is None:
        raise UsageError(
            f"the channel {channel.name} of {channel.profile} has no launch template, which a group goes by",
            hint=f"name it in the profile (channels.{channel.name}.launch_template), agree to it, and "
            "promote the same AMI again",
        )
    image, facts = _image(aws, channel, venue)
    known = launch_template.versions(aws, channel.template)
    if known is None:
        raise UsageError(
            f"there is no launch template {channel.template} in {aws.region}, which the channel "
            f"{channel.name} names",
            hint=f"bake channels --profile {channel.profile} tells more",
        )
    default = launch_template.source_of_default(known, channel.template)
    _check_default(default, channel, image)
    return Target(channel, image, default, facts, {one.number: one for one in known})


def _image(aws: Aws, channel: Channel, venue: str) -> tuple[str, Any]:
    """The AMI's id and DescribeImages' facts of it. One that is deprecated can be launched, and is served."""
    held = channels.read(aws, channel.parameter)
    promote = f"bake promote AMI --profile {channel.profile} --to {channel.name}"
    if not held.number:
        raise UsageError(f"the channel {channel.name} serves nothing yet in {aws.region}", hint=promote)
    if not held.is_image:
        raise UsageError(f"{channel.parameter} holds no AMI's id: {held.value[:60]!r}", hint=promote)
    facts = describe_image(aws, held.value, disabled=True)
    why = "it does not exist" if facts is None else unfit(facts, profile=channel.profile, venue=venue)
    if why:
        raise UsageError(
            f"{held.value}, which {channel.name} serves in {aws.region}, is not rolled out: {why}",
            hint=f"bake rollback --profile {channel.profile} --channel {channel.name} serves the one before; "
            f"{promote} another one",
        )
    return held.value, facts


def _check_default(default: Version, channel: Channel, image: str) -> None:
    """Raise UsageError unless the template's default version names this AMI by its id."""
    if default.image == image:
        return
    if default.image.startswith(BY_PARAMETER):
        raise UsageError(
            f"the default version {default.number} of {channel.template} takes its AMI from {default.image}: "
            "a refresh is rolled back to nothing but an AMI's id",
            hint="make a version with the AMI's literal id the template's default; from then on bake promote "
            "adds such versions",
        )
    raise UsageError(
        f"the default version {default.number} of {channel.template} launches {default.image or 'no AMI'}, "
        f"and {channel.name} serves {image}",
        hint=f"complete it: bake promote {image} --profile {channel.profile} --to {channel.name} --because …",
    )
