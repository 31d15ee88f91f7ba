"""What the checks found, for people and for the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "skipped", "error"]


@dataclass(frozen=True)
class Check:
    """One check. `seconds` is wall time; `message` is empty unless there is something to say.

    `base` names what it found and did not fail for, since the base AMI brought it.
    """

    id: str
    title: str
    outcome: Outcome
    seconds: float
    message: str
    requirements: tuple[str, ...] = ()
    base: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All checks of one machine, in the order they ran."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every check passed; one that was skipped did not pass."""
        return bool(self.checks) and not self.red

    @property
    def base(self) -> tuple[str, ...]:
        """What the base AMI brought that the checks would have failed for."""
        return tuple(one for check in self.checks for one in check.base)

    @property
    def red(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if check.outcome != "passed")
