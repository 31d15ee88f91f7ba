"""Read what a run left of itself: it may have been cut in the middle of a line, and nothing is trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from bake.journal import JOURNAL, Record, read_lines

T = TypeVar("T")
U = TypeVar("U")

LARGEST = 64_000_000  # bytes of a file that is read whole
WRONG = (AttributeError, IndexError, KeyError, TypeError, ValueError, ValidationError)
"""What a file with other content than a run writes makes of whoever reads it."""


@dataclass
class RunDirectory:
    """A run's files. What can't be read is left out, and named in `problems`."""

    path: Path
    problems: list[str] = field(default_factory=list)

    def json(self, name: str) -> dict[str, Any]:
        """A file with a JSON object; empty if there is none, or none that can be read."""
        found = self.any_json(name)
        if found is None or isinstance(found, dict):
            return found or {}
        self.problems.append(f"{name} is not what a run writes: left out")
        return {}

    def any_json(self, name: str) -> Any:
        """A file with any JSON value; None if there is none, or none that can be read."""
        try:
            if (self.path / name).stat().st_size > LARGEST:
                raise ValueError("it is too large")
            return json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.problems.append(f"{name} can't be read ({_why(error)}): left out")
            return None

    def part(self, what: str, make: Callable[[], T], otherwise: U) -> T | U:
        """What `make` makes of the files; `otherwise` where they hold something else than a run writes."""
        try:
            return make()
        except WRONG as error:
            self.problems.append(f"{what} is not what a run writes ({_why(error)}): left out")
            return otherwise

    def files(self, pattern: str) -> Iterator[str]:
        """Names of files, in order."""
        try:
            yield from sorted(
                str(file.relative_to(self.path)) for file in self.path.glob(pattern) if file.is_file()
            )
        except OSError as error:
            self.problems.append(f"{pattern} can't be listed ({_why(error)})")

    @cached_property
    def plan(self) -> dict[str, Any]:
        """`plan.json`."""
        return self.json("plan.json")

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The whole events of all attempts; those that are none are left out."""
        return [one for one in self._lines("events.jsonl") if _is_event(one)]

    @cached_property
    def journal(self) -> Record | None:
        """The run's journal; None if it has none."""
        entries = [one for one in self._lines(JOURNAL) if isinstance(one.get("event"), str)]
        if not entries or entries[0]["event"] != "run":
            return None
        return Record(self.path, tuple(entries))

    def _lines(self, name: str) -> list[dict[str, Any]]:
        try:
            return read_lines(self.path / name)
        except (OSError, RecursionError) as error:
            self.problems.append(f"{name} can't be read ({_why(error)}): left out")
            return []


def _is_event(one: dict[str, Any]) -> bool:
    at = one.get("at")
    return isinstance(one.get("event"), str) and isinstance(at, int | float) and not isinstance(at, bool)


def _why(error: BaseException) -> str:
    """An error in a line: pydantic's are long."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return (str(error) or type(error).__name__).splitlines()[0][:200]
