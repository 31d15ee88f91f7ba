"""Let a channel's launch template follow its parameter: its default version names the same AMI."""

from __future__ import annotations

from bake.aws import Aws
from bake.errors import BakeError
from bake.publish import launch_template, root_volume
from bake.publish.channels import Channel
from bake.publish.launch_template import BY_PARAMETER, Version
from bake.publish.root_volume import RootVolume


def check(aws: Aws, channel: Channel) -> None:
    """Raise BakeError, before anything is written, unless the channel's template can follow."""
    if channel.template is not None:
        _default(aws, channel)


def follow(aws: Aws, channel: Channel, image: str) -> int | None:
    """Make the version with this AMI the template's default; return its number, None without a template.

    It is a version with all other settings of the present default but the channel's rate: one that is there,
    or a new one. So what somebody changed in the template since an AMI was served first is not lost when it
    is served again.
    """
    if channel.template is None:
        return None
    known, now = _default(aws, channel)
    by_parameter = now.image != image and in_step(now, channel, image)
    root = None if by_parameter else root_volume.of_image(aws, image, channel.rate)
    if in_step(now, channel, image) and (root is None or root.is_within(now.data)):
        return now.number
    wanted = _alike(known, now, image, root) or launch_template.make(aws, now, image, root)
    launch_template.set_default(aws, channel.template, wanted.number, expected=now.number)
    return wanted.number


def in_step(default: Version, channel: Channel, image: str) -> bool:
    """Whether a template's default version launches what the parameter holds."""
    return default.image in (image, f"{BY_PARAMETER}{channel.parameter}")


def _default(aws: Aws, channel: Channel) -> tuple[list[Version], Version]:
    """All versions of the channel's template, and its default one, which must be one to go on from."""
    template = channel.template or ""
    known = launch_template.versions(aws, template)
    if known is None:
        raise BakeError(
            f"there is no launch template {template} in {aws.region}, which the channel {channel.name} names",
            hint="was it deleted? name another one in the profile, or none "
            f"(channels.{channel.name}.launch_template), agree to it, and run the same command again",
        )
    now = launch_template.source_of_default(known, template)
    if now.image.startswith(BY_PARAMETER) and now.image != f"{BY_PARAMETER}{channel.parameter}":
        raise BakeError(
            f"the default version {now.number} of {template} takes its AMI from {now.image}, not from "
            f"{channel.parameter}: it would follow two channels",
            hint="make a version with an AMI's literal id the default first, or name another template",
        )
    return known, now


def _alike(known: list[Version], now: Version, image: str, root: RootVolume | None) -> Version | None:
    """The newest version with this AMI that has all other settings of the present default, and the rate."""
    data = {**(root.within(now.data) if root else now.data), "ImageId": image}
    return next((one for one in reversed(known) if dict(one.data) == data), None)
