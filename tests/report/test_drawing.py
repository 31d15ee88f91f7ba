"""The figures of a report are laid out in percent."""

from __future__ import annotations

import pytest

from bake.report.drawing import LEAST, TICKS, slices, timelines
from bake.report.model import Part, Span
from tests.report.samples import GOOD


def test_bars_have_their_share_of_the_time_axis() -> None:
    spans = [
        Span(name="launch", began=0, seconds=25, outcome="done"),
        Span(name="provision", began=25, seconds=75, outcome="done"),
    ]
    (line,) = timelines(spans)
    assert [(bar.x, bar.width) for bar in line.bars] == [(0, 25), (25, 75)]


def test_a_unit_on_the_builder_says_beside_which_steps_it_ran() -> None:
    (line,) = timelines(GOOD.timeline)
    beside = {bar.span.name: bar.beside for bar in line.bars}
    assert beside["prefetch"] == ("provision",)
    assert beside["provision"] == ("prefetch",)
    assert beside["verify"] == ()


def test_a_short_step_is_seen_and_no_bar_leaves_the_axis() -> None:
    spans = [
        Span(name="a", began=0, seconds=1e6, outcome="done"),
        Span(name="b", began=1e6, seconds=0, outcome="done"),
    ]
    (line,) = timelines(spans)
    assert line.bars[1].width == LEAST
    assert all(0 <= bar.x <= bar.x + bar.width <= 100 for bar in line.bars)


@pytest.mark.parametrize("seconds", [0.02, 1, 9.03, 57, 193, 3600, 40_000, 1e7])
def test_an_axis_of_any_length_has_few_ticks(seconds: float) -> None:
    (line,) = timelines([Span(name="a", began=0, seconds=seconds, outcome="done")])
    assert 1 <= len(line.ticks) <= TICKS
    assert line.ticks[0].seconds == 0
    assert line.ticks[-1].x <= 100


def test_each_attempt_has_an_axis_and_impossible_times_have_none() -> None:
    spans = [
        Span(name="b", began=0, seconds=1, outcome="done", attempt=2),
        Span(name="a", began=0, seconds=2, outcome="failed"),
        Span(name="c", began=float("nan"), seconds=1, outcome="done"),
    ]
    assert [(line.attempt, line.seconds) for line in timelines(spans)] == [(1, 2), (2, 1)]
    assert timelines([]) == ()
    (empty,) = timelines([Span(name="a", began=0, seconds=0, outcome="done")])
    assert empty.ticks == ()


def test_parts_of_the_disk_fill_the_bar() -> None:
    found = slices(
        [Part(name=name, bytes=size, measured=True) for name, size in (("a", 30), ("b", 70), ("c", -5))]
    )
    assert [(one.x, one.width) for one in found] == [(0, 30), (30, 70), (100, 0)]
    assert slices([Part(name="a", bytes=0, measured=False)])[0].width == 0
