"""The fleet that serves a channel's AMI: what the user decides of it, for `bake fleet` (docs/fleet.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from bake.profile.section import Section, variable
from bake.profile.types import InstanceTypeName, Like, SecurityGroupId, SubnetId, Unit

TopicArn = Annotated[
    str,
    Like(
        r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$",
        "an SNS topic's ARN (arn:aws:sns:eu-north-1:123456789012:alarms)",
    ),
]
LONGEST_BUCKET = (
    63  # characters: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
)
MORE = "name it in worker.instance_types, so that the plan says whether the model fits it"
NEEDED = ("subnets", "security_groups", "max_size", "messages_per_instance")


class Fleet(Section):
    """The spot instances that serve a channel's AMI. Nothing of it is taken for granted."""

    instance_types: tuple[InstanceTypeName, ...] | None = Field(default=None, min_length=1, max_length=8)
    """Instance types that the image is for; without it, all of these."""
    subnets: tuple[SubnetId, ...] = Field(
        default=(), max_length=16, json_schema_extra=variable("BAKE_SUBNET_ID")
    )
    """The instances' subnets, in one or several zones of the builder's region."""
    security_groups: tuple[SecurityGroupId, ...] = Field(
        default=(), max_length=5, json_schema_extra=variable("BAKE_SECURITY_GROUP_ID")
    )
    """The instances' security groups. A worker needs no port that is open to others."""
    max_size: int | None = Field(default=None, ge=1, le=500, strict=True)
    """The largest number of instances at once. The smallest is none."""
    messages_per_instance: int | None = Field(default=None, ge=1, le=100_000, strict=True)
    """Jobs, waiting or in work, for each instance: with more of them the fleet grows."""
    idle_minutes: Annotated[int, Unit("minutes")] = Field(default=15, ge=5, le=720, strict=True)
    """Minutes without any job until the last instances are terminated."""
    oldest_minutes: Annotated[int, Unit("minutes")] = Field(default=60, ge=1, le=1440, strict=True)
    """Minutes that a job may wait before an alarm tells it."""
    keep_days: Annotated[int | None, Unit("days")] = Field(default=None, ge=1, le=3650, strict=True)
    """Days until images and records are deleted from a bucket that the stack creates; without it, never."""
    alarm_topics: tuple[TopicArn, ...] = Field(
        default=(), max_length=2, json_schema_extra=variable("BAKE_ALARM_TOPIC")
    )
    """SNS topics that alarms go to: each for the alarms of its region."""

    def conflicts(self) -> Iterator[str]:
        """Nothing, or all that a fleet needs."""
        missing = [key for key in NEEDED if not getattr(self, key)]
        if self.model_fields_set and missing:
            yield f"needs {', '.join(missing)}: nothing of a fleet is taken for granted"
        for key in ("instance_types", "subnets", "security_groups", "alarm_topics"):
            names = getattr(self, key) or ()
            if len(set(names)) < len(names):
                yield f"{key} names something twice"
        where = [topic.split(":")[3] for topic in self.alarm_topics]
        if len(set(where)) < len(where):
            yield "alarm_topics has two topics of one region"

    @property
    def used(self) -> bool:
        """Whether the profile has a fleet."""
        return bool(self.subnets)


def name_of(profile: str, channel: str) -> str:
    """The name of a fleet's stack, and of the queue and the bus that it creates."""
    return f"flux-{profile}-{channel}"


def check_fleet(fleet: Fleet, image_types: Sequence[str], regions: Sequence[str]) -> Iterator[str]:
    """Conflicts with the rest of the profile: the plan checks that the model fits what the image is for."""
    for topic in fleet.alarm_topics:
        if topic.split(":")[3] not in regions:
            yield f"fleet.alarm_topics has {topic}, and alarms are in {' and '.join(dict.fromkeys(regions))}"
    for name in fleet.instance_types or ():
        if name not in image_types:
            known = ", ".join(image_types)
            yield f"fleet.instance_types has {name}, and the image is for {known} alone: {MORE}"


def bucket_of(name: str, account: str, region: str) -> str:
    """The name of the bucket that a fleet creates: no two accounts may have a bucket of one name."""
    place = f"-{account}-{region}"
    if len(name) + len(place) > LONGEST_BUCKET:
        digits = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST_BUCKET - len(place) - 9]}-{digits}"
    return f"{name}{place}".lower().replace("_", "-")


def used_places(
    profile: str, channels: Sequence[str], region: str, places: Mapping[str, str | None]
) -> list[str]:
    """Those of `places` (kind -> name or URL) that exist and are used, for the agreement.

    What has the name that a stack of this profile gives is the stack's, also where the profile names it: else
    the first who tells `flux-worker send` of the queue would be asked for another agreement.
    """
    names = [name_of(profile, channel) for channel in channels]
    anybody = "0" * 12
    own = {*names, *(bucket_of(name, anybody, region) for name in names)}
    return [
        f"{kind} {value}"
        for kind, value in places.items()
        if value is not None and re.sub(r"[0-9]{12}", anybody, value.rsplit("/", 1)[-1]) not in own
    ]


def facts_of(
    fleet: Fleet, image_types: Sequence[str], region: str, used: list[str]
) -> dict[str, str | int | list[str] | None]:
    """The fleet as an agreement has it, by the names of its facts; `region` is that of queue and bus.

    Nothing where the profile has no fleet, for nothing is created then.
    """
    if not fleet.used:
        return {}
    return {
        "fleet.instance_types": list(fleet.instance_types or image_types),
        "fleet.subnets": list(fleet.subnets),
        "fleet.security_groups": list(fleet.security_groups),
        "fleet.max_size": fleet.max_size,
        "fleet.messages_per_instance": fleet.messages_per_instance,
        "fleet.idle_minutes": fleet.idle_minutes,
        "fleet.keep_days": fleet.keep_days,
        "fleet.alarm_topics": list(fleet.alarm_topics),
        "fleet.jobs_region": region,
        "fleet.uses": used,
    }
