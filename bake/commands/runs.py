"""`bake runs`: each run with its state, what it holds, until when, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from bake.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bake.journal import Record


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, oldest first.")
@click.option("--all", "everything", is_flag=True, help="Also runs that have ended and hold nothing.")
@click.pass_obj
def runs(obj: dict[str, Any], as_json: bool, everything: bool) -> None:
    """List runs: what they hold in AWS by their journals, until when, and what they cost so far.

    A run that goes on is `running`. One that was cut is `cut` until its lease expires: `bake resume` goes on
    with it. After that it is `expired`, and `bake sweep` removes what it left. AWS is not asked.

    \b
    Examples:
      bake runs                      those that go on, were cut, or left something
      bake runs --all --json
      bake --runs /srv/bake/runs runs
    """
    rows = [
        row
        for record in records(obj["runs"])
        if (row := describe(record))["holds"] or _shown(row, everything)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"no run in {obj['runs']} goes on or left anything; --all lists those that ended")
        return
    from bake.columns import table

    header = ("run", "profile", "state", "step", "expires", "cost", "holds")
    click.echo(table(header, [_cells(row) for row in rows]))


def _shown(row: dict[str, Any], everything: bool) -> bool:
    return everything or row["state"] in ("running", "cut", "expired")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from bake.costs import dollars

    held = ", ".join(row["holds"]) or "-"
    texts = (row["run"], row["profile"], row["state"], row["step"] or "-", row["expires"] or "-")
    return (*texts, dollars(row["dollars"]) if row["hours"] else "-", held)


def records(directory: Path) -> Iterator[Record]:
    """The runs of a directory, oldest first; folders of runs before there was a journal are left out."""
    from bake.journal import Record

    for folder in sorted(directory.glob("*/")) if directory.is_dir() else ():
        if record := Record.read(folder):
            yield record


def record_of(directory: Path, run: str) -> Record:
    """One run; UsageError if there is none with this id."""
    from bake.journal import Record

    record = Record.read(directory / run) if run and "/" not in run else None
    if record is None:
        known = [one.id for one in records(directory) if one.ended is None]
        there = f"these were cut or go on: {', '.join(known)}" if known else "bake runs --all lists all"
        raise UsageError(f"there is no run {run!r} in {directory}", hint=there)
    return record


def describe(record: Record) -> dict[str, Any]:
    """One run as `bake runs --json` shows it; times in UTC, `dollars` null where a price is not known."""
    from bake import costs
    from bake.creation import stamp

    now = datetime.now(UTC)
    ended = record.entries[-1] if record.ended else None
    found = costs.of(record.entries, now)
    expires = record.expires
    return {
        "run": record.id,
        "profile": record.begun["profile"],
        "rehearsal": record.begun["rehearsal"],
        "state": state_of(record, now),
        "began": record.begun["at"],
        "ended": ended and ended["at"],
        "step": record.step,
        "attempts": record.attempt,
        "expires": None if expires is None or ended else stamp(expires),
        "holds": record.held(),
        "hours": round(found.hours, 3),
        "dollars": None if found.dollars is None else round(found.dollars, 2),
        "directory": str(record.directory),
    }


def state_of(record: Record, now: datetime) -> str:
    """`running`, `cut`, `expired`, or how it ended."""
    from bake.run import is_running

    if is_running(record.directory):
        return "running"
    if record.ended:
        return record.ended
    return "expired" if record.expires is not None and record.expires <= now else "cut"
