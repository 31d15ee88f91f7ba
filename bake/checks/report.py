"""Results of the checks, for people and for the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "skipped", "error"]


@dataclass(frozen=True)
class Check:
    """One check. `seconds` is wall time; `message` is empty if it passed.

    `base` names findings that it did not fail for, because the base AMI has them.
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
        """Whether every check passed; a skipped one did not."""
        return bool(self.checks) and not self.red

    @property
    def base(self) -> tuple[str, ...]:
        """The base AMI's own findings, of all checks."""
        return tuple(one for check in self.checks for one in check.base)

    @property
    def red(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if check.outcome != "passed")
