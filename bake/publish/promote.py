"""Serve an AMI in a channel: write its id into the parameter, then let the launch template follow.

A run that ends between the two leaves the template behind; promoting the same AMI again completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bake.agreement.facts import Fact, FactValue, check_image
from bake.aws import Aws, ClientError, error_code
from bake.creation import stamp, tag_of
from bake.errors import BakeError, TimedOut, UsageError
from bake.image import PROFILE_TAG, describe_image, unfit
from bake.publish import channels, following
from bake.publish.channel_lock import EXISTS, locked
from bake.publish.channels import IMAGE_TYPE, Channel, Version
from bake.publish.places import Place

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef

Say = Callable[[str], None]
# Seconds for AWS to look at an AMI before a parameter holds it.
VALIDATED = 300.0
# Facts of an agreement that an AMI shows itself.
DISKS = ("root_volume.size_gib", "root_volume.type", "root_volume.iops", "root_volume.throughput")


class Changed(BakeError):
    """Somebody else changed the channel meanwhile."""


@dataclass(frozen=True)
class Served:
    """What a channel serves in a region after a promotion: the AMI, and the version of its parameter.

    `before` is what it held, `wrote` whether this run changed that, and `template` the default version that
    the launch template has now; None without one.
    """

    region: str
    image: str
    version: int
    before: str
    wrote: bool
    template: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        return dict(vars(self))


def promote(
    channel: Channel,
    places: Sequence[Place],
    why: str,
    venue: str,
    run: str,
    say: Say,
    *,
    deprecated: bool = False,
) -> list[Served]:
    """Serve an AMI that is fit to be served, in each region that the channel is in; the first holds the lock.

    Everything is looked at before anything is written. What is done already is left alone, so a second run
    completes one that was cut. `deprecated` says whether the AMI may be.
    """
    images = [fit(place, channel.profile, venue, deprecated=deprecated) for place in places]
    home = places[0].aws
    with locked(home, channel, run, say):
        before = [check_held(place.aws, channel) for place in places]
        following.check(home, channel)
        served = zip(places, before, images, strict=True)
        return [
            _serve(place.aws, channel, held, image["ImageId"], why, home) for place, held, image in served
        ]


def fit(place: Place, profile: str, venue: str, *, deprecated: bool = False) -> ImageTypeDef:
    """The AMI of a place; UsageError if there is none or if it may not be served."""
    if place.image is None:
        raise UsageError(
            f"there is no {place.asked} in {place.region}, nor a copy of it",
            hint="bake images lists what there is; bake publish makes the copies that are missing",
        )
    image = place.image["ImageId"]
    if why := unfit(place.image, profile=profile, venue=venue, now=None if deprecated else place.aws.now()):
        raise UsageError(
            f"{image} is not served: {why}", hint=f"bake images --profile {profile} lists what there is"
        )
    return place.image


def check_agreed(image: ImageTypeDef, agreed: Mapping[str, FactValue], accelerator: str) -> None:
    """Compare an AMI with the agreement: its root volume, its system and what it is for.

    Raises NotAgreed or UsageError with what differs.
    """
    facts = [Fact(name, agreed.get(name), "the agreement") for name in DISKS]
    facts.append(Fact("root_volume.kms_key", agreed.get("root_volume.kms_key"), "the agreement"))
    check_image(facts, image["BlockDeviceMappings"], image.get("RootDeviceName"))
    expected = {"bake:os": agreed.get("os"), "bake:accelerator": accelerator}
    for tag, wanted in expected.items():
        found = tag_of(image.get("Tags"), tag)
        if found and wanted is not None and found != wanted:
            raise UsageError(
                f"{image['ImageId']} was baked with {tag.removeprefix('bake:')} {found}, and the profile has "
                f"{wanted}: it would not run on the agreed instance types"
            )


def check_held(aws: Aws, channel: Channel) -> Version:
    """What the parameter holds now; UsageError if it is no channel of this profile."""
    held = channels.read(aws, channel.parameter)
    if not held.number:
        return held
    now = describe_image(aws, held.value, disabled=True) if held.is_image else None
    owner = tag_of(now.get("Tags"), PROFILE_TAG) if now else ""
    if held.kind != "String":
        shown = f"a {held.kind}"
    elif not held.is_image:
        shown = f"{held.value[:60]!r}, no AMI's id"
    elif owner not in ("", channel.profile):
        shown = f"{held.value}, an AMI of the profile {owner}"
    elif held.data_type != IMAGE_TYPE:
        shown = f"{held.value} as plain text, and AWS makes no parameter of {IMAGE_TYPE} of that"
    else:
        return held
    raise UsageError(
        f"{channel.parameter} in {aws.region} holds {shown}: it is left alone",
        hint="name another parameter in the profile's channels, or delete this one if nobody needs it:\n  "
        + aws.command("ssm", "delete-parameter", "--name", channel.parameter),
    )


def _serve(aws: Aws, channel: Channel, held: Version, image: str, why: str, home: Aws) -> Served:
    """Write the parameter unless it holds the AMI already; then, in its region, the template follows."""
    number = held.number if held.value == image else write(aws, channel, held, image, why)
    template = following.follow(aws, channel, image) if aws is home else None
    return Served(aws.region, image, number, held.value, number != held.number, template)


def write(aws: Aws, channel: Channel, held: Version, image: str, why: str) -> int:
    """Write an AMI's id as the version after `held`; return its number once the parameter shows it.

    Raises Changed if somebody else has written as well, and BakeError if AWS does not take the AMI over.
    """
    number = _put(aws, channel, held, image, why)
    shown = _shown(aws, channel, number, image)
    if number != held.number + 1 or shown.number != number or shown.value != image:
        _judge(aws, channel, held, number, image)
    return shown.number


def _put(aws: Aws, channel: Channel, held: Version, image: str, why: str) -> int:
    """PutParameter; the version that it promises, or the first where the parameter is there by now."""
    try:
        answer = aws.ssm.put_parameter(
            Name=channel.parameter,
            Value=image,
            Type="String",
            DataType=IMAGE_TYPE,
            Description=why,
            Overwrite=held.number > 0,
        )
    except ClientError as error:
        if error_code(error) == "ParameterMaxVersionLimitExceeded":
            raise _full(aws, channel) from error
        if error_code(error) != EXISTS:
            raise
        return 1  # another's, or this run's own, whose answer was lost: its value tells
    return int(answer["Version"])


def _full(aws: Aws, channel: Channel) -> BakeError:
    unlabel = ("--name", channel.parameter, "--parameter-version", "NUMBER", "--labels", "LABEL")
    return BakeError(
        f"{channel.parameter} has as many versions as AWS keeps, and the oldest has a label: AWS deletes no "
        "such version, and takes no new one; nothing was changed",
        hint="move or remove the label, which somebody gave that version:\n  "
        + aws.command("ssm", "unlabel-parameter-version", *unlabel),
    )


def _shown(aws: Aws, channel: Channel, number: int, image: str) -> Version:
    """Wait until the parameter shows this version or a later one."""

    def look() -> Version | None:
        found = channels.read(aws, channel.parameter)
        return found if found.number >= number else None

    try:
        return aws.wait(f"version {number} of {channel.parameter}", look, timeout=VALIDATED)
    except TimedOut as error:
        raise BakeError(
            f"version {number} of {channel.parameter} is not there after {VALIDATED:.0f} s: AWS takes an AMI "
            f"over once it has found that it is available in {aws.region}, and {image} may not be",
            hint="look whether the AMI is still there, and run the same command again",
        ) from error


def _judge(aws: Aws, channel: Channel, held: Version, number: int, image: str) -> None:
    """Raise Changed with what others wrote since `held`, unless all of it is the same AMI."""
    since = [one for one in channels.history(aws, channel.parameter) if one.number > held.number]
    others = [one for one in since if one.value != image]
    unseen = number > held.number + 1 and len(since) < number - held.number
    if not others and not unseen:
        return  # a call that was sent twice, or somebody who wants the same
    told = [
        f"version {one.number}, {stamp(one.when)}: {one.value} by {one.who or 'somebody'}"
        + (f": {one.why}" if one.why else "")
        for one in since
    ]
    now = since[-1].value if since else image
    raise Changed(
        f"somebody else changed {channel.parameter} in {aws.region} while this ran, from version "
        f"{held.number} ({held.value or 'nothing'}) on:\n  "
        + "\n  ".join(told)
        + f"\nit holds {now} now; the launch template was not changed",
        hint="agree with them on the one that it shall be, and promote that one: the same AMI as in the "
        "parameter completes the template",
    )
