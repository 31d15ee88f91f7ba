"""What a check compares: each comparison is kept as evidence, whether it holds or not.

A check compares as often as it likes and fails at its end with all that was wrong. One that compares nothing
proves nothing, and fails.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from bake.checks.baseline import CALLED
from bake.checks.expectations import Expectations
from bake.checks.result import Evidence
from bake.redaction import redact

NOTHING = "none"
BOOK: pytest.StashKey[Book] = pytest.StashKey()


@dataclass
class Book:
    """The evidence of one check: all of it, what was wrong, and the base AMI's own findings."""

    evidence: list[Evidence] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    base: list[str] = field(default_factory=list)


class Compare:
    """Compares what was found with what is expected, and keeps both. `by` is what showed it."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def equal(self, by: object, expected: object, found: object) -> None:
        """The two are equal."""
        self.holds(by, expected == found, shown(expected), shown(found))

    def none(self, by: object, found: Collection[object], what: str = NOTHING) -> None:
        """Nothing was found; `what` says in words what is expected."""
        self.holds(by, not found, what, shown(found) if found else NOTHING)

    def holds(self, by: object, ok: bool, expected: str, found: object) -> None:
        """`ok` says whether what was found is as expected, both given in words."""
        evidence = Evidence.of(expected, shown(found), getattr(by, "by", str(by)))
        self._book.evidence.append(evidence)
        if not ok:
            self._book.wrong.append(f"expected {evidence.expected}, found {evidence.found}")


class Caused:
    """Separates the findings that the bake caused from those of its base AMI, which are told apart."""

    def __init__(self, expect: Expectations, book: Book) -> None:
        self._expect, self._book = expect, book

    def __call__(
        self, kind: str, found: Mapping[str, str], changed: Mapping[str, float] | None = None
    ) -> list[str]:
        """Return the names of the findings that the base AMI did not have."""
        caused = self._expect.baseline.caused(kind, found, changed)
        self._book.base += [redact(f"{CALLED[kind]} {name}") for name in found if name not in caused]
        return list(caused)


def not_applicable(reason: str) -> NoReturn:
    """End a check that says nothing about this machine, with the reason."""
    pytest.skip(reason)


def shown(value: Any) -> str:
    """Text of a value: lists and mappings a line each, sorted as they come."""
    if isinstance(value, str):
        return value.strip() or "nothing"
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {shown(one)}" for name, one in value.items()) or NOTHING
    if isinstance(value, set | frozenset):
        return shown(sorted(value, key=str))
    if isinstance(value, list | tuple):
        return "\n".join(shown(one) for one in value) or NOTHING
    return str(value)
