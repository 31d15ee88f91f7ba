"""One thing in the account that is a bake's, or looks like one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bake.creation import EXPIRES_TAG, RUN_TAG, time_of
from bake.image import STATE_TAG

PREFIX = "bake-"  # the names of all that a bake creates begin so
LOOKS = re.compile(rf"{PREFIX}\d{{8}}-\d{{6}}-[0-9a-f]{{6}}")  # and go on with the run's id
Tags = Mapping[str, str]


@dataclass(frozen=True)
class Holding:
    """One thing, with its tags as they were when it was asked for.

    `status` is the API's state of it; `used_by` what keeps it from being removed, by id; `size` GiB of disk;
    `dollars` what it costs in a month, None where that is not known; `by_hand` the command that removes it;
    `unread` why its tags could not be read. Of an AMI, `snapshots` are those that it is registered from, and
    `protection` says how EC2 protects it from deregistration, empty if it does not.
    """

    kind: str
    id: str
    name: str
    region: str
    tags: Tags
    by_hand: str
    status: str = ""
    created: datetime | None = None
    used_by: tuple[str, ...] = ()
    size: int | None = None
    type: str = ""
    dollars: float | None = None
    unread: str = ""
    snapshots: tuple[str, ...] = ()
    protection: str = ""

    @property
    def run(self) -> str:
        """The run that created it; empty if its tags name none."""
        return self.tags.get(RUN_TAG, "")

    @property
    def profile(self) -> str:
        """The profile of that run."""
        return self.tags.get("bake:profile", "")

    @property
    def state(self) -> str:
        """What became of it: draft, unproven, good or revoked; empty without the tag."""
        return self.tags.get(STATE_TAG, "")

    @property
    def expires(self) -> datetime | None:
        """Until when it may be needed; None without the tag, or if that is no time."""
        return time_of(self.tags.get(EXPIRES_TAG, ""))

    @property
    def malformed(self) -> bool:
        """Whether its expiry is no time."""
        return EXPIRES_TAG in self.tags and self.expires is None


def tags_of(tags: Any) -> dict[str, str]:
    """Tags as a mapping, from a mapping or a list of {"Key", "Value"}."""
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in tags or ()}


def concerns(name: str, tags: Tags) -> bool:
    """Whether the inventory names a thing: by its tag, or because it is named as a bake's things are."""
    return bool(tags.get(RUN_TAG)) or LOOKS.match(name) is not None


def shown(at: datetime) -> str:
    """A time for people, in UTC."""
    try:
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except OverflowError:  # a tag may hold any year
        return str(at)
