"""The form of a mutation: one fault of a machine, the one check that must see it, and what it must say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bake.checks import Expectations

Expecting = Callable[[Expectations], Mapping[str, Any]]


def _as_it_is(expect: Expectations) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Fault:
    """One fault. `seed` and `mend` run as root by bash; see `Builder.root` for the variables that are set."""

    red: str
    """The id of the check that must go red, and of no other."""
    found: str
    """Words of the finding: they must stand in the check's reason."""
    seed: str = ""
    mend: str = ""
    expect: Expecting = _as_it_is
    """What to expect instead, where it is not the machine that differs but what the plan or AWS says."""


@dataclass(frozen=True)
class Change:
    """A change by itself, and the checks that it turns red: none, one, or several at once."""

    seed: str
    mend: str
    red: Mapping[str, str]
    """Ids -> words of the findings."""
    select: str | None = None
    expect: Expecting = _as_it_is
    why: str = ""
    """Why more than one."""


@dataclass(frozen=True)
class Batch:
    """Faults that do not touch each other, seeded on one machine for one run of the checks."""

    faults: Sequence[Fault]
    select: str | None = None
    """A `-k` expression; None for all checks."""
    expect: Expecting = _as_it_is
    seed: str = ""
    """Makes the checks apply, and leaves them green."""
    mend: str = ""

    def expected(self, expect: Expectations, *faults: Fault) -> Expectations:
        """What to expect of the machine with these faults, or with none."""
        changes = [self.expect, *(fault.expect for fault in faults)]
        for change in changes:
            expect = replace(expect, **change(expect))
        return expect


def stand_in(name: str, script: str) -> str:
    """A line of bash that puts a program before the system's own of that name."""
    place = f"/usr/local/bin/{name}"
    return f"cat >{place} <<'END'\n#!/bin/sh\n{script}\nEND\nchmod 755 {place}"
