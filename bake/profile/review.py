"""What a profile says for those who review its images: waivers, and the types of the keys beside them."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from bake import redaction
from bake.profile.section import Section
from bake.profile.types import Like

_DAY = "a day (2027-01-31)"

CheckFile = Annotated[
    str,
    Field(max_length=200),
    Like(
        r"^[A-Za-z0-9._][A-Za-z0-9._+@ -]*(/[A-Za-z0-9._+@ -]+)*/?$", "a relative path (checks/our_policy.py)"
    ),
]
# Of a vulnerability as scanners name it: by MITRE, GitHub, Amazon Linux.
_VULNERABILITY = r"CVE-[0-9]{4}-[0-9]{4,19}|GHSA(-[0-9a-z]{4}){3}|ALAS[0-9A-Z]*-[0-9]{4}-[0-9]{3,9}"
WaivedId = Annotated[
    str,
    Field(max_length=200),
    Like(
        rf"^([a-z]+(\.[A-Za-z0-9_]+){{1,2}}(\[[^\[\]\s]{{1,100}}\])?|{_VULNERABILITY})$",
        "the id of a check (security.private_keys) or of a vulnerability (CVE-2027-12345)",
    ),
]


def _day(value: Any) -> Any:
    """A day as it is written, never a moment or a number of seconds, which pydantic would take, too."""
    if type(value) is date:
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII):
        raise PydanticCustomError("like", "does not look like {words}", {"words": _DAY})
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError(f"there is no day {value}") from None


Day = Annotated[date, BeforeValidator(_day)]


class Waiver(Section):
    """Somebody's decision to accept, until a day, that a check fails or that there is a vulnerability."""

    check: WaivedId
    """The id of a check (`security.private_keys`) or of a vulnerability (`CVE-2027-12345`)."""
    reason: str = Field(min_length=1, max_length=500)
    """Why the failure is accepted."""
    approved_by: str = Field(min_length=1, max_length=200)
    """Who decided it."""
    risk: str = Field(min_length=1, max_length=500)
    """What may happen because of it."""
    until: Day
    """The last day on which it counts, in UTC. From the next day on the check fails again."""

    @field_validator("reason", "approved_by", "risk")
    @classmethod
    def _readable(cls, value: str) -> str:
        """One line that every report can show; a text of several lines is joined."""
        line = " ".join(value.split())
        if not line:
            raise ValueError("is empty")
        if bad := next((letter for letter in line if not letter.isprintable()), None):
            raise ValueError(f"has the character U+{ord(bad):04X}, which nobody sees")
        if redaction.redact(line) != line:
            raise ValueError("must not hold a secret: it is shown in every report")
        return line
