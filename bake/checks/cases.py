"""Record the checks that the bake itself makes on its way: each is a case of the report.

A step opens a recording and wraps what it checks anyway. However the step ends, the results are kept: what
passed, what failed, and what was not run any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from bake.checks.case_list import CASES
from bake.checks.result import Check, Evidence, Moment, Outcome, Waiver
from bake.checks.waivers import waive
from bake.errors import BakeError, ConnectionLost
from bake.redaction import redact
from bake.run import Run

LINES = 12  # of a reason


@dataclass
class Case:
    """What one case is told while it runs: each call is one comparison."""

    id: str
    evidence: list[Evidence] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    base: tuple[str, ...] = ()
    """The base AMI's own findings, for which it does not fail."""
    does_not_apply: str = ""
    """Why, if it does not."""
    untold: str = ""
    """Why nobody could tell, if so."""

    def __call__(self, expected: object, found: object, by: str) -> None:
        """Note what was expected and found, and the command, call or program that showed it."""
        self.evidence.append(Evidence.of(_text(expected), _text(found), by))

    def holds(self, ok: bool, expected: object, found: object, by: str) -> None:
        """The same, and fail the case unless `ok`; the step goes on."""
        self(expected, found, by)
        if not ok:
            told = self.evidence[-1]
            self.wrong.append(f"expected {told.expected}, found {told.found}")


class Cases:
    """The cases of one step, at one moment. `expected` are the ids of those that it makes."""

    def __init__(self, moment: Moment, expected: Sequence[str] = ()) -> None:
        self.moment, self.expected = moment, tuple(expected)
        self._found: dict[str, Check] = {}

    @contextmanager
    def case(self, name: str) -> Iterator[Case]:
        """Run the block as a case: it fails with a BakeError, which is raised again.

        A broken connection, a refusal of AWS or an interrupt says nothing about the machine: not run.
        """
        told, started = Case(name), time.monotonic()
        try:
            yield told
        except BaseException as error:
            outcome, reason = _of(error)
            self._add(told, outcome, reason, started)
            raise
        if told.does_not_apply:
            self._add(told, "not applicable", told.does_not_apply, started)
        elif told.untold:
            self._add(told, "not run", told.untold, started)
        else:
            self._add(told, "failed" if told.wrong else "passed", "\n".join(told.wrong), started)

    def _add(self, told: Case, outcome: Outcome, reason: str, started: float) -> None:
        self._found[told.id] = Check(
            about=CASES[told.id],
            moment=self.moment,
            outcome=outcome,
            reason=first(reason),
            evidence=tuple(told.evidence),
            base=tuple(redact(one) for one in told.base),
            seconds=round(time.monotonic() - started, 3),
        )

    def results(self, ended: str = "") -> tuple[Check, ...]:
        """Those that ran, and the rest as not run since the step `ended` so."""
        rest = [name for name in self.expected if name not in self._found]
        return (*self._found.values(), *not_run(self.moment, rest, ended or "the step did not come to it"))

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those that failed or could not be told."""
        return tuple(one for one in self._found.values() if one.red)


def first(reason: str) -> str:
    """The first lines of a reason, without secrets."""
    return "\n".join(redact(reason).splitlines()[:LINES])


def not_run(moment: Moment, names: Sequence[str], reason: str) -> tuple[Check, ...]:
    """Cases that should have run and did not."""
    text = first(reason)
    return tuple(Check(about=CASES[name], moment=moment, outcome="not run", reason=text) for name in names)


@contextmanager
def recording(
    run: Run,
    moment: Moment,
    name: str,
    expected: Sequence[str],
    waivers: Sequence[Waiver] = (),
    today: Callable[[], date] = lambda: datetime.now(UTC).date(),
) -> Iterator[Cases]:
    """Record the cases of the block into `facts/checks-MOMENT-NAME.json`, however the block ends."""
    cases = Cases(moment, expected)
    ended = ""
    try:
        yield cases
    except BaseException as error:
        ended = f"the step ended before: {_of(error)[1]}"
        raise
    finally:
        found = waive(cases.results(ended), waivers, today()) if waivers else cases.results(ended)
        keep(run, moment, name, found)


def keep(run: Run, moment: Moment, name: str, found: Sequence[Check]) -> None:
    """Keep the results of a step for the report."""
    told: list[Any] = [check.model_dump(mode="json") for check in found]
    run.keep(f"facts/checks-{moment}-{name}.json", json.dumps(told, indent=1) + "\n")


def _of(error: BaseException) -> tuple[Outcome, str]:
    """What an error says about the case that it ended."""
    if isinstance(error, BakeError):
        return ("not run" if isinstance(error, ConnectionLost) else "failed"), error.message
    if isinstance(error, KeyboardInterrupt):
        return "not run", f"interrupted{f' ({error})' if str(error) else ''}"
    return "not run", f"{type(error).__name__}: {error}"


def _text(value: object) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(str(one) for one in value) or "none"
    return str(value)
