"""The types of a profile's texts: a pattern, and words that tell people what such a text is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, core_schema


@dataclass(frozen=True)
class Like:
    """A text that matches `pattern`, which editors check as well; `words` tell people what it is.

    The error of any other text has the type "like" and the words in its context.
    """

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "pattern": self.pattern}

    def _check(self, value: str) -> str:
        if re.fullmatch(self.pattern, value) is None:
            raise PydanticCustomError("like", "does not look like {words}", {"words": self.words})
        return value


@dataclass(frozen=True)
class Unit:
    """What the number of a field counts."""

    name: str


AmiId = Annotated[str, Like(r"^ami-[0-9a-f]{8,17}$", "an AMI id (ami-0123456789abcdef0)")]
SsmParameter = Annotated[
    str, Field(max_length=1000), Like(r"^/[A-Za-z0-9._/-]+$", "an SSM parameter (/aws/service/…)")
]
Owner = Annotated[str, Like(r"^(amazon|self|[0-9]{12})$", "amazon, self or an account id")]
# Partitions of their own have longer names, like eusc-de-east-1.
Region = Annotated[str, Like(r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$", "a region (eu-north-1)")]
InstanceTypeName = Annotated[str, Like(r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$", "an instance type (g6e.xlarge)")]
SubnetId = Annotated[str, Like(r"^subnet-[0-9a-f]{8,17}$", "a subnet id (subnet-0123456789abcdef0)")]
SecurityGroupId = Annotated[str, Like(r"^sg-[0-9a-f]{8,17}$", "a security group id (sg-0123456789abcdef0)")]
SecurityGroup = Annotated[
    str,
    Like(
        r"^(sg-[0-9a-f]{8,17}|temporary)$",
        "a security group id (sg-0123456789abcdef0), nor is it `temporary`",
    ),
]
AccountId = Annotated[str, Like(r"^[0-9]{12}$", "an account id (12 digits)")]

RoleArn = Annotated[
    str,
    Like(
        r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$",
        "a role's ARN (arn:aws:iam::123456789012:role/bake-reaper)",
    ),
]

Commit = Annotated[str, Like(r"^[0-9a-f]{40}$", "a commit (40 hexadecimal digits)")]
# Without user name and password: what is in a URL is in argument lists and logs.
GitUrl = Annotated[
    str,
    Like(
        r"^(https?://[A-Za-z0-9][^\s@]*|(ssh|git|file)://([A-Za-z0-9._-]+@)?[A-Za-z0-9/][^\s@]*"
        r"|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^\s@]+)$",
        "a Git repository's URL, without user name and password",
    ),
]

QueueUrl = Annotated[str, Like(r"^https?://[^\s/@][^\s@]*$", "a queue's URL")]
Bucket = Annotated[str, Like(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "a bucket's name")]
EventBus = Annotated[str, Like(r"^[A-Za-z0-9._/-]{1,256}$", "an event bus's name")]
Namespace = Annotated[
    str,
    Like(r"^(?!AWS/)[A-Za-z0-9._#/-][A-Za-z0-9._#:/-]{0,254}$", "a CloudWatch namespace, not one of AWS"),
]

Repository = Annotated[str, Like(r"^https?://[^\s@]+$", "a package repository's URL")]
# `gpg --fingerprint` prints it in groups; write it without blanks.
Fingerprint = Annotated[
    str, Like(r"^[0-9A-F]{40}$", "a key's fingerprint (40 hexadecimal digits, in capitals, without blanks)")
]
DriverVersion = Annotated[str, Like(r"^[0-9]{3,4}(\.[0-9]{1,4}){1,2}$", "a driver's version (580.95.05)")]
PackageVersion = Annotated[str, Like(r"^[0-9][A-Za-z0-9.+~-]{0,63}$", "a package's version (2.28.23.0)")]
# Pixels, each 256 to 1440 and a multiple of 16; `flux-worker compile` holds it to that.
Size = Annotated[str, Like(r"^[1-9][0-9]{2,3}x[1-9][0-9]{2,3}$", "width and height in pixels (1024x1024)")]

_DURATION = r"^[1-9][0-9]{0,4}[dh]$"
# EC2's own longest time, until an AMI is deprecated.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
LONGEST = timedelta(days=3650)


def _duration(value: Any) -> Any:
    """The timedelta of a text such as `30d` or `12h`; a number alone would leave open what it counts."""
    if isinstance(value, timedelta):
        return value  # a default, or what another profile of the program has
    if not isinstance(value, str) or re.fullmatch(_DURATION, value, re.ASCII) is None:
        raise PydanticCustomError("like", "does not look like {words}", {"words": "a duration (30d, 12h)"})
    count = int(value[:-1])
    found = timedelta(days=count) if value.endswith("d") else timedelta(hours=count)
    if found > LONGEST:
        raise ValueError(f"must be at most {duration_text(LONGEST)}")
    return found


def duration_text(value: timedelta) -> str:
    """A duration as profiles have it, in whole days (`30d`) or else in hours (`36h`)."""
    hours = round(value / timedelta(hours=1))
    return f"{hours}h" if hours % 24 else f"{hours // 24}d"


# How long something lasts, in days or hours: a positive text in a profile, a timedelta in the code.
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(duration_text),
    WithJsonSchema({"type": "string", "pattern": _DURATION}),
]
