"""Collect what a plan finds: problems, warnings, what was checked and what could not be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from bake.account.answers import Unanswered
from bake.errors import UsageError

T = TypeVar("T")


@dataclass
class Findings:
    """Collected while planning; `origins` says where each setting of the profile came from."""

    origins: Mapping[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)

    def problem(self, path: str, text: str, *details: str) -> None:
        """Report what makes the bake impossible, with its setting; `details` are printed below it."""
        origin = self.origins.get(path)
        first = f"{origin}: {path}: {text}" if origin else f"{path}: {text}"
        self.problems.append("\n".join([first, *(f"    {line}" for line in details)]))

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def confirm(self, text: str) -> None:
        """Record a check that passed."""
        self.checked.append(text)

    def not_checked(self, what: str, why: str) -> None:
        self.unchecked.append(f"{what} ({why})")

    def origin(self, path: str) -> str:
        """Where a setting came from, if that is known."""
        return self.origins.get(path, "the profile")

    def required(self, path: str, what: str, answer: T | Unanswered | None) -> T | None:
        """Return an answer about something that must exist: report its absence, note a missing answer."""
        if answer is None:
            self.problem(path, f"there is no {what}")
            return None
        return self.answered(what, answer)

    def answered(self, what: str, answer: T | Unanswered) -> T | None:
        """Return an answer about something optional: without one, note `what` as not checked."""
        if isinstance(answer, Unanswered):
            self.not_checked(what, answer.why)
            return None
        return answer

    def stop_if_any(self) -> None:
        """Raise UsageError with all problems, if there are any."""
        if self.problems:
            raise UsageError("\n".join(self.problems), hint="nothing was started")
