"""Choose the AMI that a channel goes back to: the one that it served before, as far as it can be served.

The history is read as an undo list. A promotion puts an AMI on top; a rollback takes off what is above the
one that it went back to, which was found to be bad: another rollback goes further back, and not to that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.image import describe_image, unfit
from bake.publish import channels
from bake.publish.channels import Channel, Version


@dataclass(frozen=True)
class Chosen:
    """The AMI to go back to, and those that were passed over, each with the reason."""

    image: str
    skipped: tuple[tuple[str, str], ...] = ()


def choose(aws: Aws, channel: Channel, venue: str, to: str | None = None) -> Chosen:
    """The AMI that was served before and is still fit for it, or `to` if that was served once.

    UsageError without a history, or where `to` is not in it; BakeError with all reasons if none is fit. What
    is deprecated can be launched, so a channel can go back to it.
    """
    versions = channels.history(aws, channel.parameter)
    if not versions:
        raise UsageError(
            f"{channel.name} has never served an AMI: {aws.region} has no parameter {channel.parameter}",
            hint=f"bake promote AMI --profile {channel.profile} --to {channel.name}",
        )
    if to is not None:
        return Chosen(_named(aws, channel, versions, venue, to))
    skipped: list[tuple[str, str]] = []
    for image in before(versions):
        if not (why := reason_against(aws, channel, venue, image)):
            return Chosen(image, tuple(skipped))
        skipped.append((image, why))
    told = [f"{image}: {why}" for image, why in skipped] or ["its history has no other AMI"]
    raise BakeError(
        f"there is no AMI that {channel.name} can go back to:\n  " + "\n  ".join(told),
        hint=f"bake promote AMI --to {channel.name} serves another one; "
        f"bake images --profile {channel.profile} lists them",
    )


def _named(aws: Aws, channel: Channel, versions: Sequence[Version], venue: str, to: str) -> str:
    """The AMI that was asked for; UsageError unless it was served once, and is fit for it now."""
    served = list(dict.fromkeys(one.value for one in reversed(versions)))
    if to not in served:
        raise UsageError(
            f"{channel.name} has never served {to}, as far as its history goes: {', '.join(served)}",
            hint=f"bake promote {to} --to {channel.name}",
        )
    if to != versions[-1].value and (why := reason_against(aws, channel, venue, to)):
        raise UsageError(f"{channel.name} can't go back to {to}: {why}")
    return to


def reason_against(aws: Aws, channel: Channel, venue: str, image: str) -> str:
    """Why a channel can't go back to what it held once; empty if it can."""
    if not channels.AMI.fullmatch(image):
        return "that is no AMI's id"
    facts = describe_image(aws, image, disabled=True)
    if facts is None:
        return "it does not exist any more"
    return unfit(facts, profile=channel.profile, venue=venue)


def before(versions: Sequence[Version]) -> list[str]:
    """What was served before the present AMI, the newest first, each once; `versions` are oldest first."""
    line: list[str] = []
    for version in versions:
        if version.rolled_back and version.value in line:
            while line[-1] != version.value:
                line.pop()
        elif not line or line[-1] != version.value:
            line.append(version.value)
    now = versions[-1].value if versions else ""
    return [image for image in dict.fromkeys(reversed(line)) if image != now]
