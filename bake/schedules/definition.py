"""What a schedule is written for: profiles with their variables, the time, and how long a bake may take."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from bake.errors import UsageError
from bake.profile import Profile
from bake.profile.variables import REFERENCE, SECRET_NAME, SECRET_VARIABLES
from bake.schedules.cron import Cron

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
# A bake may take twice its estimate, and an hour more for the snapshot, which no estimate knows.
FACTOR, SNAPSHOT = 2, timedelta(hours=1)
SHORTEST, STEP = timedelta(hours=2), 15  # minutes to which a limit is rounded up


@dataclass(frozen=True)
class Variable:
    """A `${NAME}` of a profile; `default` where the profile has one, `value` where it is set here."""

    name: str
    default: str | None = None
    value: str | None = None

    @property
    def secret(self) -> bool:
        """Whether its value is a secret, by its name."""
        key_of_kms = self.name.endswith("KMS_KEY")
        return self.name in SECRET_VARIABLES or bool(SECRET_NAME.search(self.name) and not key_of_kms)


@dataclass(frozen=True)
class Scheduled:
    """A profile that is baked: as it is, as its files write it (`raw`), and the minutes that it may take.

    `problems` are what a bake would refuse today: no agreement, no lock.
    """

    profile: Profile
    raw: Mapping[str, Any]
    variables: tuple[Variable, ...]
    minutes: int
    secrets: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.profile.name

    def written(self, section: str, key: str) -> str:
        """A value as the profile's files write it, such as `${AWS_REGION}`."""
        return str(self.raw[section][key])


@dataclass(frozen=True)
class Definition:
    """A schedule that is asked for. `words` go before the command: where profiles and variables are."""

    name: str
    cron: Cron
    profiles: tuple[Scheduled, ...]
    directory: Path = Path("profiles")
    env_file: Path = Path(".env.local")
    rehearsal: bool = False
    options: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def minutes(self) -> int:
        """How long the longest of the bakes may take."""
        return max(one.minutes for one in self.profiles)

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of all profiles, by name."""
        found = {one.name: one for scheduled in self.profiles for one in scheduled.variables}
        return tuple(found[name] for name in sorted(found))

    def option(self, name: str) -> str | None:
        """What was asked for of one kind of schedule."""
        return self.options.get(name)


@dataclass(frozen=True)
class Written:
    """The files of a schedule by their path, what to do next, and what should be known."""

    files: Mapping[Path, str]
    next: tuple[str, ...]
    notes: tuple[str, ...] = ()


def limit(seconds: float) -> int:
    """Minutes that a bake may take whose plan estimates so many seconds."""
    asked = max(FACTOR * timedelta(seconds=seconds) + SNAPSHOT, SHORTEST)
    return STEP * math.ceil(asked / timedelta(minutes=STEP))


def check_name(name: str) -> str:
    """A name that is safe in files, units, stacks and workflows; UsageError for any other."""
    if not PLAIN.fullmatch(name):
        raise UsageError(f"{name!r} can't be in the name of a schedule", hint="letters, digits, . _ and -")
    return name


def outside(directory: Path) -> str:
    """Why profiles in `directory` can't be baked from a repository; empty if they can."""
    parts = directory.parts
    if directory.is_absolute() or ".." in parts or not all(PLAIN.fullmatch(part) for part in parts):
        return f"--profiles {directory}: must be a folder of the repository, by a plain relative path"
    return ""


def variables_of(raw: Any, values: Mapping[str, str]) -> tuple[Variable, ...]:
    """The variables that a profile names anywhere, each once, with their values here."""
    found = dict(_references(raw))
    return tuple(Variable(name, found[name], values.get(name) or None) for name in sorted(found))


def _references(raw: Any) -> Iterator[tuple[str, str | None]]:
    match raw:
        case str():
            yield from ((one[1], one[2]) for one in REFERENCE.finditer(raw))
        case Mapping():
            for value in raw.values():
                yield from _references(value)
        case list() | tuple():
            for value in raw:
                yield from _references(value)
