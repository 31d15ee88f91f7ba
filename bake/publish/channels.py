"""A channel: an SSM parameter that holds the id of the AMI that is served, and what wrote it when and why.

The parameter is the truth. Its data type is `aws:ec2:image`, so AWS looks at the AMI before it takes an id
over: PutParameter answers first, and the version is there later, or never.
https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bake.aws import Aws, ClientError, error_code
from bake.creation import stamp
from bake.errors import UsageError
from bake.profile import Profile
from bake.profile.channels import LOCK, parameter_of
from bake.redaction import redact

IMAGE_TYPE = "aws:ec2:image"
AMI = re.compile(r"ami-[0-9a-f]{8,17}")
ABSENT = "ParameterNotFound"
# What the description of a version begins with that `bake rollback` wrote.
ROLLBACK = "rollback: "
# Characters of a parameter's description, and of a tag's value.
LONGEST, LONGEST_TAG = 1024, 256
NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Channel:
    """One channel of a profile: its parameter, and the launch template that follows it (None: none).

    `rate` is the VolumeInitializationRate of root volumes in that template, in MiB/s; None leaves it.
    """

    profile: str
    name: str
    parameter: str
    template: str | None = None
    rate: int | None = None

    @property
    def lock(self) -> str:
        """The parameter that says who is changing the channel."""
        return f"{self.parameter}{LOCK}"


@dataclass(frozen=True)
class Version:
    """One version of a channel's parameter; number 0 where there is no parameter yet.

    `who` is an ARN, and `why` what was said of it; both are empty where AWS does not tell.
    """

    number: int
    value: str
    when: datetime = NEVER
    who: str = ""
    why: str = ""
    kind: str = "String"
    data_type: str = IMAGE_TYPE

    @property
    def is_image(self) -> bool:
        """Whether the value is an AMI's id."""
        return self.kind == "String" and AMI.fullmatch(self.value) is not None

    @property
    def rolled_back(self) -> bool:
        """Whether `bake rollback` wrote it."""
        return self.why.startswith(ROLLBACK)

    def as_dict(self) -> dict[str, Any]:
        """The version for JSON."""
        when = stamp(self.when) if self.number else None
        return {"version": self.number, "value": self.value, "when": when, "who": self.who, "why": self.why}


NOTHING = Version(0, "")


def channels_of(profile: Profile) -> tuple[Channel, ...]:
    """All channels of a profile."""
    return tuple(
        Channel(
            profile.name,
            name,
            parameter_of(profile.name, name, one),
            one.launch_template,
            profile.cold_start.volume_initialization_rate,
        )
        for name, one in profile.channels.items()
    )


def channel_of(profile: Profile, name: str) -> Channel:
    """A profile's channel by its name; UsageError if it has none of that name."""
    known = {one.name: one for one in channels_of(profile)}
    if name in known:
        return known[name]
    if not known:
        raise UsageError(
            f"the profile {profile.name} has no channels",
            hint=f"add one to the profile, then agree to it: channels: {{{name}: {{}}}} (docs/channels.md)",
        )
    raise UsageError(f"the profile {profile.name} has no channel {name!r}; it has {', '.join(known)}")


def read(aws: Aws, parameter: str) -> Version:
    """What a parameter holds now, without who wrote it; NOTHING if it is not there."""
    try:
        found = aws.ssm.get_parameter(Name=parameter)["Parameter"]
    except ClientError as error:
        if error_code(error) == ABSENT:
            return NOTHING
        raise
    return _version(found)


def held(aws: Aws, parameters: Iterable[str]) -> dict[str, Version]:
    """What several parameters hold now, by name, those alone that are there; ten are asked for at a time."""
    names = list(parameters)
    found: dict[str, Version] = {}
    for start in range(0, len(names), 10):
        answer = aws.ssm.get_parameters(Names=names[start : start + 10])
        found |= {one["Name"]: _version(one) for one in answer["Parameters"]}
    return found


def history(aws: Aws, parameter: str) -> list[Version]:
    """All versions that AWS still has, oldest first: a hundred at most. Empty if there is no parameter."""
    pages = aws.ssm.get_paginator("get_parameter_history")
    try:
        found = [one for page in pages.paginate(Name=parameter) for one in page["Parameters"]]
    except ClientError as error:
        if error_code(error) == ABSENT:
            return []
        raise
    return sorted(map(_version, found), key=lambda one: one.number)


def _version(raw: Any) -> Version:
    return Version(
        int(raw["Version"]),
        str(raw.get("Value", "")),
        raw.get("LastModifiedDate", NEVER),
        str(raw.get("LastModifiedUser", "")),
        str(raw.get("Description", "")),
        str(raw.get("Type", "String")),
        str(raw.get("DataType", "text")),
    )


def reason(because: str, *, prefix: str = "", longest: int = LONGEST) -> str:
    """A reason as AWS keeps it: one line without secrets, cut where it would be too long.

    UsageError if there is none.
    """
    said = " ".join(redact(because).split())
    said = "".join(letter for letter in said if letter.isprintable())
    if said in ("", "…"):
        raise UsageError("--because is empty: say why, for whoever reads the history")
    whole = f"{prefix}{said}"
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"
