"""Lay out the figures of report.html: the timeline of a bake and its disk use, in percent of their width.

The templates draw them as SVG with these numbers, so that figures scale while their text does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from bake.report.model import Part, Span

STEPS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)
"""Distances of ticks in seconds."""
TICKS = 6
LEAST = 0.4
"""A bar is never narrower, or a short step would not be seen."""


@dataclass(frozen=True)
class Bar:
    """One step on the time axis; `beside` are the steps of the other lane that ran at the same time."""

    span: Span
    x: float
    width: float
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tick:
    """A mark of the axis, in seconds since the attempt began."""

    x: float
    seconds: float


@dataclass(frozen=True)
class Timeline:
    """One attempt of a run: its steps in their order."""

    attempt: int
    seconds: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Slice:
    """One part of the disk in the stacked bar; `share` is a fraction."""

    part: Part
    x: float
    width: float
    share: float


def timelines(spans: Iterable[Span]) -> tuple[Timeline, ...]:
    """Lay out each attempt; spans that no clock could have measured are left out."""
    known = [span for span in spans if math.isfinite(span.began) and math.isfinite(span.seconds)]
    known.sort(key=lambda span: (span.attempt, span.began, span.lane != "bake"))
    return tuple(
        _timeline(number, list(group)) for number, group in groupby(known, key=lambda span: span.attempt)
    )


def _timeline(attempt: int, spans: Sequence[Span]) -> Timeline:
    total = max((span.began + span.seconds for span in spans), default=0.0)
    scale = 100 / total if total > 0 else 0.0
    bars = tuple(_bar(span, spans, scale) for span in spans)
    return Timeline(attempt, total, bars, _ticks(total))


def _bar(span: Span, spans: Sequence[Span], scale: float) -> Bar:
    x = min(max(span.began * scale, 0.0), 100 - LEAST)
    width = min(max(span.seconds * scale, LEAST), 100 - x)
    beside = tuple(other.name for other in spans if other.lane != span.lane and _overlap(span, other))
    return Bar(span, round(x, 2), round(width, 2), beside)


def _overlap(one: Span, other: Span) -> bool:
    begin = max(one.began, other.began)
    return min(one.began + one.seconds, other.began + other.seconds) - begin > 0.05


def _ticks(total: float) -> tuple[Tick, ...]:
    if total <= 0:
        return ()
    step = next((step for step in STEPS if total / step < TICKS), total)
    return tuple(
        Tick(round(100 * number * step / total, 2), number * step) for number in range(int(total / step) + 1)
    )


def slices(parts: Sequence[Part]) -> tuple[Slice, ...]:
    """Stack the parts; a part of no size, or less, gets no room."""
    total = sum(max(part.bytes, 0) for part in parts)
    found, x = [], 0.0
    for part in parts:
        share = max(part.bytes, 0) / total if total else 0.0
        found.append(Slice(part, round(x, 2), round(100 * share, 2), share))
        x += 100 * share
    return tuple(found)
