"""How a channel stands in a region: what it serves, and what is not as it should be. It changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bake.aws import Aws
from bake.creation import stamp
from bake.image import describe_image, unfit
from bake.publish import channels, following, launch_template
from bake.publish.channel_lock import LOCK_AGE, holder
from bake.publish.channels import Channel, Version

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef


@dataclass(frozen=True)
class Standing:
    """A channel in a region. `versions` is the history, oldest first; `faults` what is to be mended, and how.

    `template` is the template's default version; None without a template, or where it is not there. `notes`
    are no faults.
    """

    channel: Channel
    region: str
    versions: tuple[Version, ...]
    template: launch_template.Version | None
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def now(self) -> Version:
        """What the parameter holds."""
        return self.versions[-1] if self.versions else channels.NOTHING

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, the history newest first."""
        template = self.template and {"version": self.template.number, "image": self.template.image}
        return {
            "profile": self.channel.profile,
            "channel": self.channel.name,
            "region": self.region,
            "parameter": self.channel.parameter,
            "image": self.now.value or None,
            **{key: value for key, value in self.now.as_dict().items() if key != "value"},
            "launch_template": self.channel.template,
            "default": template,
            "faults": list(self.faults),
            "notes": list(self.notes),
            "history": [one.as_dict() for one in reversed(self.versions)],
        }


def look(aws: Aws, channel: Channel, venue: str, *, home: bool = True) -> Standing:
    """How a channel stands in the region of `aws`; its lock and its template are `home` alone."""
    channel = channel if home else replace(channel, template=None)
    versions = tuple(channels.history(aws, channel.parameter))
    now = versions[-1] if versions else channels.NOTHING
    faults = [*_of_value(aws, channel, now, venue)] if now.number else []
    default, told = _of_template(aws, channel, now)
    notes = [] if now.number else ["nothing is promoted yet"]
    if home and (lock := holder(aws, channel)) is not None:
        age = aws.now() - lock.since
        old = (
            f"; it is older than {LOCK_AGE.total_seconds() / 60:.0f} minutes, and the next run takes it over"
        )
        notes.append(f"locked by {lock.who} since {stamp(lock.since)}{old if age >= LOCK_AGE else ''}")
    return Standing(channel, aws.region, versions, default, (*faults, *told), tuple(notes))


def _of_value(aws: Aws, channel: Channel, now: Version, venue: str) -> list[str]:
    """What is wrong with what the parameter holds."""
    if not now.is_image:
        return [f"{channel.parameter} holds no AMI's id: {now.value[:60]!r}"]
    facts: ImageTypeDef | None = describe_image(aws, now.value, disabled=True)
    back = f"bake rollback --profile {channel.profile} --channel {channel.name}"
    if facts is None:
        return [f"{now.value} does not exist any more: {back} serves the one before"]
    why = unfit(facts, profile=channel.profile, venue=venue)
    return [f"{now.value} is not fit to be served: {why}; {back} serves the one before"] if why else []


def _of_template(
    aws: Aws, channel: Channel, now: Version
) -> tuple[launch_template.Version | None, list[str]]:
    """The default version of the channel's template, and what is wrong with it."""
    if channel.template is None:
        return None, []
    known = launch_template.versions(aws, channel.template)
    if known is None:
        return None, [f"the launch template {channel.template} does not exist"]
    default = launch_template.source_of_default(known, channel.template)
    if not now.is_image or following.in_step(default, channel, now.value):
        return default, []
    has = default.image or "no AMI"
    gone = channels.AMI.fullmatch(has) and describe_image(aws, has, disabled=True) is None
    return default, [
        f"the default version {default.number} of {channel.template} launches {has}"
        + (", which does not exist any more" if gone else "")
        + f", not {now.value}; to complete it: "
        f"bake promote {now.value} --profile {channel.profile} --to {channel.name}"
    ]
