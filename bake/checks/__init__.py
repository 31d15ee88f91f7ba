"""Testinfra checks of a baked machine: what reviewers read before they trust an image.

`run` compares one machine with `Expectations`, over the session that the bake already has. A check is a test
function in a `test_*.py` here. The first line of its docstring is its title; ids of requirements in the
docstring (`R-SYSTEMD`) become properties in the JUnit report.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bake.checks.expectations import Expectations
from bake.checks.report import Check, Report

if TYPE_CHECKING:
    from bake.ssh import Session

__all__ = ["Check", "Expectations", "Report", "run"]


def run(
    session: Session, expect: Expectations, junit_xml: Path, log: Path, *, select: str | None = None
) -> Report:
    """Run the checks; write JUnit XML to `junit_xml` and pytest's own words to `log`.

    `select` is a pytest `-k` expression that narrows the run. Nothing is printed. Raises BakeError if the
    connection breaks or the checks can't run at all; a failed check is in the report.
    """
    from bake.checks.runner import run_checks  # pytest and testinfra take 0.3 s to import

    return run_checks(session, expect, junit_xml, log, select)
