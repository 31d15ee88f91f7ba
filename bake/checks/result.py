"""Results of checks: what was expected, what was found, and what follows from it.

These models are what `report.json` holds; every report is made from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bake.redaction import redact

Moment = Literal["base", "sealed", "booted"]
"""When a check looked: at the base AMI after the first login, at the disk that becomes the image, or at an
instance that booted from the finished AMI."""
Group = Literal["system", "users", "drivers", "worker", "weights", "security", "disk", "performance"]
Severity = Literal["critical", "high", "medium", "low"]
Outcome = Literal["passed", "failed", "waived", "not applicable", "not run"]

GROUPS: tuple[Group, ...] = (
    "system",
    "users",
    "drivers",
    "worker",
    "weights",
    "security",
    "disk",
    "performance",
)
SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low")


LONGEST = 4000  # characters of a side of a comparison


class Record(BaseModel):
    """A part of a report: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Evidence(Record):
    """One comparison of a check, as text for people."""

    expected: str
    found: str
    by: str
    """The command, API call or program whose answer is `found`."""

    @classmethod
    def of(cls, expected: str, found: str, by: str) -> Evidence:
        """Make it of texts that may be long or hold a secret."""
        return cls(expected=_cut(expected), found=_cut(found), by=_cut(by))


def _cut(text: str) -> str:
    text = redact(text)
    left_out = len(text) - LONGEST
    return text if left_out <= 0 else f"{text[:LONGEST]}… ({left_out} more characters)"


class Waiver(Record):
    """Somebody's decision to accept that a check fails, until a day."""

    check: str
    """The id of the check, such as `security.no_private_keys`."""
    reason: str
    approved_by: str
    risk: str
    until: date
    """The last day on which it counts, in UTC."""


class About(Record):
    """What a check is about, whatever it found."""

    id: str
    """Group and name, such as `users.no_passwords`: stable from release to release."""
    group: Group
    title: str
    severity: Severity
    requirements: tuple[str, ...]
    """Ids of docs/requirements.md."""
    rationale: str
    """Why it matters."""
    remedy: str
    """What to do where it fails."""
    cis: str | None = None
    """The item of a CIS benchmark that it corresponds to, where one does."""
    source: str = ""
    """Where its code is: file and line, relative to the package or to the profile."""


class Check(Record):
    """One check at one moment."""

    about: About
    moment: Moment
    outcome: Outcome
    reason: str = ""
    """Why it failed, does not apply or was not run; empty if it passed."""
    evidence: tuple[Evidence, ...] = ()
    base: tuple[str, ...] = ()
    """The base AMI's own findings, for which it does not fail."""
    waiver: Waiver | None = None
    """The waiver of a waived check, or the one that has ended, of a failed one."""
    seconds: float = 0.0

    @property
    def id(self) -> str:
        return self.about.id

    @property
    def red(self) -> bool:
        """Whether it stands in the way of the image: it failed, or should have run and did not."""
        return self.outcome in ("failed", "not run")


def red(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that stand in the way."""
    return tuple(check for check in checks if check.red)
