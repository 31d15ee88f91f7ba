"""The cold start as a table: for the terminal, for Markdown and for the page."""

from __future__ import annotations

from bake import columns
from bake.checks.cold_start import ColdStart, StartStage
from bake.progress import readable
from bake.report.text import line

HEADER = ("stage", "began", "took", "read", "rate", "floor", "× floor", "note")
_NONE = "–"
_LONGEST = 160  # characters of a note


def sentence(found: ColdStart) -> str:
    """How long it took, against which limit, and what the floor is."""
    limit = "" if found.max_seconds is None else f" (cold_start.max_seconds: {found.max_seconds})"
    took = "was not measured" if found.seconds is None else f"took {found.seconds:.1f} s"
    floor = ""
    if found.floor_seconds is not None and found.floor_mb_per_s is not None and found.bytes is not None:
        ratio = "" if found.ratio is None else f", {found.ratio:.1f} times the floor"
        floor = (
            f"{ratio}: {_size(found.bytes)} at {found.floor_mb_per_s:.0f} MB/s ({found.floor_from}) are "
            f"{found.floor_seconds:.1f} s"
        )
    return f"From the running instance to the first image it {took}{limit}{floor}"


def hydration(found: ColdStart) -> str:
    """At which rate bytes were read for the first time."""
    if found.hydration_mb_per_s is None or found.hydration_bytes is None:
        return f"First reads: {found.hydration_from}"
    size = _size(found.hydration_bytes)
    return f"First reads: {found.hydration_mb_per_s:.1f} MB/s, {size} by {found.hydration_from}"


def remarks(found: ColdStart) -> list[str]:
    """What is told below the table."""
    told = [hydration(found)]
    if found.initialized_percent is not None:
        how = f" ({found.initialization})" if found.initialization else ""
        told.append(f"Volume: EBS had filled {found.initialized_percent} % of it{how} by the first image")
    return [*told, *found.notes]


def rows(found: ColdStart) -> list[tuple[str, ...]]:
    """A row for each stage, as HEADER has the columns."""
    return [_row(one) for one in found.stages]


def _row(one: StartStage) -> tuple[str, ...]:
    return (
        f"{one.name} (beside)" if one.beside else one.name,
        _seconds(one.began),
        _seconds(one.seconds),
        _NONE if one.bytes is None else _size(one.bytes),
        _NONE if one.mb_per_s is None else f"{one.mb_per_s:.1f} MB/s",
        _seconds(one.floor_seconds),
        _NONE if one.ratio is None else f"{one.ratio:.2f}",
        one.note,
    )


def table(found: ColdStart) -> str:
    """The whole report of a start for a terminal: what a machine wrote has no control characters in it."""
    more = [f"  {line(one)}" for one in remarks(found)]
    cells = [tuple(line(cell, _LONGEST) for cell in row) for row in rows(found)]
    return "\n".join([f"\n{sentence(found)}", columns.table(HEADER, cells), *more])


def _seconds(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f} s"


def _size(count: int) -> str:
    return readable(count)
