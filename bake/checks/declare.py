"""Declare a check: how grave a failure is, why it matters, what to do, and what it asks the machine.

The test function's docstring has the title in its first sentence and the ids of requirements; its module, the
group; both make the id: `test_no_passwords` in `test_users.py` is `users.no_passwords`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from bake.checks.expectations import Expectations
from bake.checks.result import About, Group, Moment, Severity

Test = TypeVar("Test", bound=Callable[..., object])
Questions = Callable[[Expectations], Mapping[str, str]]

REQUIREMENT = re.compile(r"\b[RC]-[A-Z0-9]+(?:-[A-Z0-9]+)*\b")
_IDS = re.compile(rf" *\((?:{REQUIREMENT.pattern}(?:, *)?)+\)")
_ATTRIBUTE = "__bake_check__"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Declaration:
    """What a check says of itself, but for its docstring."""

    severity: Severity = "high"
    rationale: str = "The profile asks for it."
    remedy: str = "Read what was found, and mend it in the base AMI or in the profile."
    cis: str | None = None
    moments: tuple[Moment, ...] = ("sealed",)
    on_builder: bool = False
    group: Group = "system"
    asks: Questions = field(default=lambda expect: {})
    applies: Callable[[Expectations], str | None] = field(default=lambda expect: None)


def check(
    severity: Severity,
    rationale: str,
    remedy: str,
    *,
    cis: str | None = None,
    booted: bool = False,
    on_builder: bool = False,
    group: Group = "system",
    asks: Questions = lambda expect: {},
    applies: Callable[[Expectations], str | None] = lambda expect: None,
) -> Callable[[Test], Test]:
    """Declare a test function as a check.

    `asks` names shell commands; the answers of all checks come in one round trip, as the fixture `answers`.
    `applies` returns why the check does not apply to a machine, or None. `booted` repeats the check on an
    instance of the finished AMI; by hand all are, but for those that only a builder can pass (`on_builder`).
    `group` is for checks of a profile; bake's own are in their module's. `cis`
    is an item of a CIS benchmark: "Ubuntu 22.04 5.4.2.1".
    """
    moments: tuple[Moment, ...] = ("sealed", "booted") if booted else ("sealed",)
    declared = Declaration(severity, rationale, remedy, cis, moments, on_builder, group, asks, applies)

    def declare(test: Test) -> Test:
        setattr(test, _ATTRIBUTE, declared)
        return test

    return declare


def declaration(test: object) -> Declaration:
    """What a test function says of itself; the defaults for one that is not declared."""
    found: Declaration = getattr(test, _ATTRIBUTE, Declaration())
    return found


def about(name: str, parameters: str, test: Any, file: Path, line: int) -> About:
    """What a test function checks. `name` is the function's, `parameters` follow it in brackets, if any."""
    declared, text = declaration(test), " ".join((test.__doc__ or name).split("\n\n")[0].split())
    module = file.stem.removeprefix("test_")
    own = file.parent == HERE
    group = module if own and module in get_args(Group) else declared.group
    called = name.removeprefix("test_")
    return About(
        id=f"{group}.{called if own else f'{module}.{called}'}{parameters}",
        group=group,  # type: ignore[arg-type]
        title=_IDS.sub("", text).strip().rstrip("."),
        severity=declared.severity,
        requirements=tuple(dict.fromkeys(REQUIREMENT.findall(text))),
        rationale=declared.rationale,
        remedy=declared.remedy,
        cis=declared.cis,
        source=f"{f'bake/checks/{file.name}' if own else file}:{line}",
    )
