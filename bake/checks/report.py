"""The results of one run of the checks."""

from __future__ import annotations

from dataclasses import dataclass

from bake.checks.result import Check, red


@dataclass(frozen=True)
class Report:
    """All checks of one machine at one moment, in the order they ran."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether there are checks and none stands in the way."""
        return bool(self.checks) and not self.red

    @property
    def base(self) -> tuple[str, ...]:
        """The base AMI's own findings, of all checks."""
        return tuple(one for check in self.checks for one in check.base)

    @property
    def red(self) -> tuple[Check, ...]:
        """The checks that failed or could not be run, and are not waived."""
        return red(self.checks)

    def count(self, outcome: str) -> int:
        """How many checks had this outcome."""
        return sum(check.outcome == outcome for check in self.checks)
