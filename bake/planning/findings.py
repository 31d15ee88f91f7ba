"""What a plan finds: what is well, problems that stop it, warnings that don't, open questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from bake.aws import unanswered
from bake.errors import UsageError
from bake.retries import error_code

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
        """Something that makes the bake impossible, with the setting it is about; `details` go below it."""
        origin = self.origins.get(path)
        first = f"{origin}: {path}: {text}" if origin else f"{path}: {text}"
        self.problems.append("\n".join([first, *(f"    {line}" for line in details)]))

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def confirm(self, text: str) -> None:
        """Something that was looked at and is as it should be."""
        self.checked.append(text)

    def not_checked(self, what: str, why: str) -> None:
        self.unchecked.append(f"{what} ({why})")

    def origin(self, path: str) -> str:
        """Where a setting came from, as far as it is known."""
        return self.origins.get(path, "the profile")

    def look_up(self, call: Callable[[], T], *absent: str) -> T | None:
        """Ask AWS for something that may not exist: None when the error code starts with one of `absent`."""
        try:
            return call()
        except Exception as error:
            if error_code(error).startswith(absent):
                return None
            raise

    def require(self, path: str, what: str, call: Callable[[], T], *absent: str) -> T | None:
        """Ask AWS for something that must exist: its absence is a problem, no answer is noted.

        `absent` are error codes, or their beginnings, that say that `what` is not there.
        """
        try:
            return call()
        except Exception as error:
            if error_code(error).startswith(absent):
                self.problem(path, f"there is no {what}")
            else:
                self._unanswered(what, error)
            return None

    def ask(self, what: str, call: Callable[[], T]) -> T | None:
        """Ask AWS what is good to know: without an answer, `what` is noted as not checked."""
        try:
            return call()
        except Exception as error:
            self._unanswered(what, error)
            return None

    def _unanswered(self, what: str, error: Exception) -> None:
        why = unanswered(error)
        if why is None:
            raise error
        self.not_checked(what, f"AWS answers {why}")

    def stop_if_any(self) -> None:
        """Raise UsageError with every problem, if there is one."""
        if self.problems:
            raise UsageError("\n".join(self.problems), hint="nothing was started")
