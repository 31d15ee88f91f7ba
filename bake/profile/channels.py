"""Channels: names for the AMI that is served, such as `stable`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from bake.profile.publishing import LaunchTemplateId
from bake.profile.section import Section, variable
from bake.profile.types import Like

# What is added to a channel's parameter for the one that says who is changing it.
LOCK = ".lock"

ChannelName = Annotated[
    str, Like(r"^[a-z0-9][a-z0-9-]{0,31}$", "a channel's name: lower-case letters, digits and hyphens")
]
# AWS reserves what begins with aws or ssm, in any case, and takes 1,011 characters with the ARN before them.
# https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
OwnParameter = Annotated[
    str,
    Field(max_length=900),
    Like(
        r"^/(?![aA][wW][sS]|[sS][sS][mM])[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,13}$",
        "an SSM parameter of your own (/flux/stable; nothing that begins with /aws or /ssm)",
    ),
]


class Channel(Section):
    """Where a channel's AMI is told: an SSM parameter, and a launch template that follows it."""

    parameter: OwnParameter | None = None
    """The SSM parameter that holds the AMI's id; /bake/PROFILE/CHANNEL without it."""
    launch_template: LaunchTemplateId | None = Field(None, json_schema_extra=variable("BAKE_LAUNCH_TEMPLATE"))
    """A launch template whose default version gets the same AMI."""


def _kept(value: object) -> object:
    """Drop what an extended profile has and this one sets to null."""
    if not isinstance(value, dict):
        return value
    return {name: one for name, one in value.items() if one is not None}


Channels = Annotated[dict[ChannelName, Channel], BeforeValidator(_kept)]


def parameter_of(profile: str, name: str, channel: Channel) -> str:
    """The SSM parameter of a channel."""
    return channel.parameter or f"/bake/{profile}/{name}"


def facts_of(profile: str, channels: Mapping[str, Channel]) -> list[str]:
    """The channels as an agreement lists them: which parameter and which template each one changes."""
    return [
        f"{name}: parameter {parameter_of(profile, name, one)}, "
        + (f"template {one.launch_template}" if one.launch_template else "no template")
        for name, one in channels.items()
    ]


def check_channels(profile: str, channels: Mapping[str, Channel], published: str | None) -> None:
    """Raise ValueError unless each channel has a parameter, and a template, of its own.

    `published` is the parameter that every good AMI is written to, whoever promotes it.
    """
    taken = {published: "publish.parameter"} if published else {}
    for name, channel in channels.items():
        parameter = parameter_of(profile, name, channel)
        things = [parameter, f"{parameter}{LOCK}", *filter(None, [channel.launch_template])]
        for thing in things:
            if taken.setdefault(thing, name) != name:
                raise ValueError(f"{taken[thing]} and {name} both change {thing}: give each its own")
