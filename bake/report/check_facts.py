"""The checks of a run: those that ran, and those that should have and did not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pydantic import TypeAdapter

from bake.checks.case_list import STEPS
from bake.checks.cases import first, not_run
from bake.checks.result import Check, Moment
from bake.report.run_directory import RunDirectory

MOMENTS = ("base", "sealed", "booted")
CHECKS = TypeAdapter(tuple[Check, ...])
MACHINES: tuple[tuple[Moment, str], ...] = (("sealed", "verify"), ("booted", "checks"))
"""When the checks of a machine's content run, and what their results are called."""
OWN = tuple(f"facts/checks-{moment}-{name}.json" for moment, name, _ in STEPS)


def checks(run: RunDirectory) -> tuple[Check, ...]:
    """All checks that ran, by moment; first those of the bake's own steps, in their order."""
    there = list(run.files("facts/checks-*.json"))
    ordered = [name for name in OWN if name in there] + [name for name in there if name not in OWN]
    return by_moment([check for name in ordered for check in run.part(name, partial(_read, run, name), ())])


def _read(run: RunDirectory, name: str) -> tuple[Check, ...]:
    return CHECKS.validate_python(run.any_json(name) or [])


def missing(run: RunDirectory, command: str, reason: str) -> tuple[Check, ...]:
    """The checks of steps that the run did not come to; `reason` says why."""
    there = set(run.files("facts/checks-*.json"))
    found = [
        check
        for moment, name, ids in STEPS
        if f"facts/checks-{moment}-{name}.json" not in there and (command == "bake" or moment == "booted")
        for check in not_run(moment, ids, reason)
    ]
    if command == "bake":  # a boot check by itself knows no base AMI to compare with
        for moment, name in MACHINES:
            if f"facts/checks-{moment}-{name}.json" not in there:
                found += _of_machines(moment, reason)
    return tuple(found)


def _of_machines(moment: Moment, reason: str) -> list[Check]:
    """The checks of a machine's content, none of which was run."""
    from bake.checks.catalogue import checks as catalogue  # pytest and testinfra take 0.3 s to import

    abouts = [about for about, moments in catalogue() if moment in moments]
    return [Check(about=one, moment=moment, outcome="not run", reason=first(reason)) for one in abouts]


def by_moment(found: Sequence[Check]) -> tuple[Check, ...]:
    """The checks in the order of their moments."""
    return tuple(sorted(found, key=lambda check: MOMENTS.index(check.moment)))
