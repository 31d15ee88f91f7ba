"""What a worker has in hand while one job is delivered and the next is drawn, and what a kill then costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from . import evidence
from .fleet import MOMENTS, Kill, Life
from .lives import ASIDE, life

BOTH = ((10, "drawing"), (15, "drawn"), (16, "drawing", "two"))


@pytest.mark.parametrize(
    ("said", "in_hand", "last"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([(10, "drawing")], ["one"], ["one"], id="drawing"),
        pytest.param([*BOTH[:2]], ["one"], ["one"], id="delivering"),
        pytest.param([*BOTH[:2], (16, "done")], [], [], id="done"),
        pytest.param([*BOTH], ["one", "two"], ["one", "two"], id="drawing-and-delivering"),
        pytest.param([*BOTH, (17, "done")], ["two"], ["two"], id="drawing-and-delivered"),
        pytest.param([*BOTH, (17, "drawn", "two")], ["one", "two"], ["one", "two"], id="two-drawn"),
        # What becomes of its message is logged before AWS is told.
        pytest.param([*BOTH, (17, ASIDE)], ["two", "one"], ["two", "one"], id="set-aside-just-now"),
        pytest.param(
            [*BOTH, (17, ASIDE), (18, "drawn", "two")], ["two"], ["one", "two"], id="set-aside-a-while-ago"
        ),
    ],
)
def test_what_a_worker_has_in_hand(said: Any, in_hand: list[str], last: list[str]) -> None:
    killed = life(*said, killed=20)
    assert killed.in_hand() == in_hand
    assert killed.last_jobs() == last


@pytest.mark.parametrize(
    ("lives", "beside"),
    [
        pytest.param([life(*BOTH[:2], (16, "done"), (17, "drawing", "two"))], 0, id="one-after-the-other"),
        pytest.param([life(*BOTH, (17, "done"), (18, "drawn", "two"), (19, "drawing"))], 2, id="beside"),
        pytest.param([life(*BOTH, (17, "drawn", "two"), (18, "done"), (19, "drawing"))], 2, id="slow-one"),
        pytest.param([life(*BOTH), life(*BOTH)], 2, id="two-workers"),
        pytest.param([life(*BOTH, (17, "drawn", "two"), (18, "drawing", "three"))], None, id="two-wait"),
    ],
)
def test_what_waits(lives: list[Life], beside: int | None) -> None:
    fleet: Any = SimpleNamespace(lives=lambda: lives)
    if beside is not None:
        assert evidence.one_result_waits_at_a_time(fleet) == beside
        return
    with pytest.raises(AssertionError, match="wait to be delivered"):
        evidence.one_result_waits_at_a_time(fleet)


def test_the_moments_of_a_kill() -> None:
    log = life(*BOTH[:2], (16, "done"), *BOTH)
    comes = {moment: [Kill(0, 0, moment, 0).has_come(log, seen) for seen in range(7)] for moment in MOMENTS}
    assert comes["drawing"] == [True] * 6 + [False]
    assert comes["drawn"] == [True] * 5 + [False] * 2
    assert comes["both"] == [True] * 6 + [False]
    log.lines.pop()
    assert not Kill(0, 0, "both", 0).has_come(log, 0)


def test_no_moment_is_left_out() -> None:
    plan = Kill.plan(7, kills=len(MOMENTS), jobs=30, slots=2)
    assert {kill.moment for kill in plan} == set(MOMENTS)


def test_how_long_a_recovery_takes() -> None:
    """Both jobs count that a killed worker had in hand, wherever they are done."""
    done = life((25, "delivered from the outbox"), (32, "done", "two"), (60, "announced again", "two"))
    fleet: Any = SimpleNamespace(lives=lambda: [life(*BOTH, killed=20), done])
    assert evidence.recoveries(fleet) == [5, 12]


@pytest.mark.parametrize(
    ("said", "killed", "expected"),
    [
        pytest.param([*BOTH], 20.0, {"one": 1, "two": 1}, id="killed-with-two"),
        pytest.param([*BOTH, (17, "done")], 20.0, {"two": 1}, id="killed-with-one"),
        pytest.param([*BOTH], None, {}, id="not-killed"),
        pytest.param([(17, "not announced that the job goes")], None, {"one": 1}, id="refused"),
        pytest.param([(1, "cannot read the queue's redrive policy"), *BOTH], None, None, id="not-told"),
    ],
)
def test_what_no_worker_could_tell(said: Any, killed: float | None, expected: dict[str, int] | None) -> None:
    fleet: Any = SimpleNamespace(lives=lambda: [life(*said, killed=killed)])
    lost = [('{"id": "lost"}', 6), ('{"id": "received-again"}', 5)]
    found = evidence.unheard(lost, fleet, 6)
    assert found.pop("lost") == 1
    assert "received-again" not in found
    assert set(found) == {"one", "two"} if expected is None else dict(found) == expected
