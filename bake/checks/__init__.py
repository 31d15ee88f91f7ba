"""Testinfra checks of a baked machine: what reviewers read before they trust an image.

`run` compares one machine with `Expectations`, over the session that the bake already has; `run_on` does so
over a connection of testinfra's own. A check is a test function in a `test_*.py` here, declared by
`bake.checks.declare.check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bake.checks.expectations import Expectations
from bake.checks.report import Report
from bake.checks.result import Check

if TYPE_CHECKING:
    from bake.ssh import Session

__all__ = ["Check", "Expectations", "Report", "run", "run_on"]


def run(
    session: Session,
    expect: Expectations,
    log: Path,
    *,
    select: str | None = None,
    files: Sequence[Path] = (),
) -> Report:
    """Run the checks, and those of `files`; write pytest's own words to `log`.

    `select` is a pytest `-k` expression that narrows the run. Nothing is printed. Raises BakeError if the
    connection breaks or the checks can't run at all; a failed check is in the report.
    """
    from bake.checks import backend
    from bake.checks.runner import run_checks  # pytest and testinfra take 0.3 s to import

    return run_checks(backend.host(session), expect, log, select, files)


def run_on(
    url: str,
    expect: Expectations,
    log: Path,
    *,
    select: str | None = None,
    files: Sequence[Path] = (),
    ssh_config: str | None = None,
    identity: str | None = None,
    proxy: Sequence[str] = (),
) -> Report:
    """The same for a machine that testinfra connects to: `ssh://ubuntu@192.0.2.1`, `docker://name`, `local://`.

    `ssh_config` and `identity` are files for ssh(1), `proxy` is a command that leads there. Raises
    BakeError if nobody becomes root there.
    """
    from bake.checks import backend
    from bake.checks.runner import run_checks

    machine = backend.named(url, ssh_config=ssh_config, identity=identity, proxy=proxy)
    return run_checks(machine, expect, log, select, files)
