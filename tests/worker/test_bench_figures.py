"""The figures of tests/bench/bench_queue.py follow from what the workers log and note."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.serving import Figures, gaps, gaps_cpu, outside
from tests.worker.stress.lives import life


def test_the_time_between_two_drawings() -> None:
    """From the end of one to the beginning of the next, whatever is logged meanwhile."""
    log = life((1, "drawing"), (3, "drawn"), (3.5, "done"), (4, "drawing"), (6, "drawn"), (6.25, "drawing"))
    assert gaps(log.lines) == [1, 0.25]


def test_a_drawing_that_failed_ends_no_gap() -> None:
    log = life((1, "drawing"), (2, "the job failed"), (9, "drawing"), (10, "drawn"))
    assert gaps(log.lines) == []


def test_cpu_outside_drawing() -> None:
    """What the process used from the first drawing to the end of the last, less what drawing used."""
    notes: list[dict[str, Any]] = [
        {"process_before": 10, "process_after": 12, "thread_before": 5, "thread_after": 7},
        {"process_before": 13, "process_after": 16, "thread_before": 7.5, "thread_after": 10},
        {"process_before": 18, "process_after": 20, "thread_before": 11, "thread_after": 13},
    ]
    assert outside(notes) == (3.5, 2)
    assert gaps_cpu(notes) == [0.5, 1]


def test_turns_are_added() -> None:
    figures = Figures()
    for jobs, cpu in ((2, 0.25), (3, 0.5)):
        turn = Figures(jobs=jobs, gaps=[0.01] * jobs, outside=[(cpu, jobs)], stand_in_cpu=1, worker_cpu=3)
        turn.calls.update({"s3 PutObject": jobs})
        figures.add(turn)
    assert (figures.jobs, figures.calls.total(), len(figures.gaps)) == (5, 5, 5)
    assert figures.outside_ms == 150
    assert figures.gap_ms == pytest.approx((10, 10))
    assert figures.stand_in_share == 0.25
