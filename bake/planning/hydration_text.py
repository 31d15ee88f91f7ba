"""Show how a new volume gets the bytes that a start needs: as text, and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bake.columns import columns
from bake.planning.hydration import MONTH, Hydration, Way
from bake.planning.starts import Start

WIDTH = 100


def as_dict(found: Hydration) -> dict[str, Any]:
    """The hydration plan in bytes, seconds, MB/s, GiB and dollars; null is what is not known."""
    launches = found.launches_per_hour
    return {
        **asdict(found),
        "chosen": found.chosen.name,
        "ways": [
            {
                **asdict(way),
                "waiting_dollars": found.waiting(way),
                "dollars_an_hour": None if launches is None else way.an_hour(launches),
                "dollars_a_month": None if launches is None else MONTH * way.an_hour(launches),
            }
            for way in found.ways
        ],
    }


def cold_start(start: Start, found: Hydration) -> list[tuple[str, str, str]]:
    """Rows of what a start takes: all of it, then stage by stage."""
    reads = f"{start.load:.0f} s until {_gb(found.reads.bytes)} are read ({found.chosen.name})"
    if not start.measured:
        stages = (f"a boot with imports, {start.boot:.0f} s (assumed), and at most", f"{reads};")
        last = "the first drawing is not known until a start was measured"
    else:
        stages = (_measured(start), f"and at most {reads};")
        last = f"measured by the boot check of {start.measured}, but the reading"
    return [
        ("cold start", f"{start.seconds:.0f} s", stages[0]),
        *(("", "", one) for one in (stages[1], last)),
    ]


def _measured(start: Start) -> str:
    known = {"boot": start.boot, "imports": start.imports, "first drawing": start.first_draw}
    return ", ".join(
        f"{name} {'not known' if seconds is None else f'{seconds:.0f} s'}" for name, seconds in known.items()
    )


def section(found: Hydration) -> list[str]:
    """The ways in a table, the one that the profile asks for marked; then where the figures are from."""
    return [
        f"Hydration plan of {found.instance_type}, where a start reads {_reads(found)}:",
        *columns([_header(found), *(_row(found, way) for way in found.ways)]),
        *(line for text in _notes(found) for line in _wrapped(text)),
    ]


def _reads(found: Hydration) -> str:
    reads = found.reads
    others = " (libraries: not known yet)" if reads.others is None else f", {_gb(reads.others)} of libraries"
    return f"{_gb(reads.weights)} of weights{others}"


def _header(found: Hydration) -> tuple[str, ...]:
    launches = found.launches_per_hour
    header = ("", "way", "seconds", "a launch", "its instance")
    return header if launches is None else (*header, f"{launches:g} an hour", "a month")


def _row(found: Hydration, way: Way) -> tuple[str, ...]:
    bound = "at most " if found.at_most and "Rate" in way.name else ""
    hourly = f"${way.hour_dollars:.2f} an hour" if way.hour_dollars else ""
    launch = hourly or bound + _dollars(way.launch_dollars)
    row = (">" if way.chosen else "", way.name, _seconds(way), launch, _dollars(found.waiting(way)))
    if found.launches_per_hour is None:
        return row
    dollars = way.an_hour(found.launches_per_hour)
    return (*row, _dollars(dollars), _dollars(MONTH * dollars))


def _seconds(way: Way) -> str:
    """At most and at best, where they differ."""
    if way.seconds is None:
        return "not known"
    high = f"{way.seconds:.0f}"
    low = high if way.best is None else f"{way.best:.0f}"
    return high if high == low else f"{high} ({low} at best)"


def _dollars(amount: float | None) -> str:
    if amount is None:
        return "not known"
    return f"${amount:.4f}" if 0 < amount < 0.01 else f"${amount:.2f}"


def _notes(found: Hydration) -> Iterator[str]:
    reading = found.reading
    yield f"no way reads from EBS faster than {reading.mb_per_s:.0f} MB/s: {reading.limit}"
    yield "a launch's price is beside its instance, which waits for so many seconds of its hour"
    yield f"lazy: {found.lazy.mb_per_s:.4g} MB/s; {found.lazy.source}"
    yield from (f"{way.name}: {note}" for way in found.ways for note in way.notes)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
