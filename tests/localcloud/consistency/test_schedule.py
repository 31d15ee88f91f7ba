"""The delays of a seed."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from bake.localcloud.api.consistency.schedule import ELSE, LONGEST, NONE, Delay, Schedule

KINDS = [*LONGEST, "something new"]


def drawn(schedule: Schedule, order: list[str]) -> dict[str, list[Delay]]:
    found: dict[str, list[Delay]] = {}
    for kind in order:
        found.setdefault(kind, []).append(schedule.next(kind))
    return found


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_same_seed_gives_the_same_delays_in_whatever_order_things_are_made(seed: int) -> None:
    order = KINDS * 20
    mixed = random.Random(5).sample(order, len(order))
    assert drawn(Schedule(seed), order) == drawn(Schedule(seed), mixed)


def test_threads_change_nothing_about_the_delays() -> None:
    schedule = Schedule(3)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(schedule.next, ["i"] * 200))
    alone = Schedule(3)
    assert sorted(map(repr, found)) == sorted(repr(alone.next("i")) for _ in range(200))


def test_another_seed_gives_other_delays() -> None:
    assert drawn(Schedule(1), KINDS) != drawn(Schedule(2), KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_delay_is_none_or_a_few_seconds(kind: str) -> None:
    longest = LONGEST.get(kind, ELSE)
    found = [Schedule(7).delay(kind, number) for number in range(400)]
    late = [one.seconds for one in found if one != NONE]
    assert all(longest / 4 <= seconds <= longest for seconds in late)
    assert 50 < len(found) - len(late) < 150  # "now and then"
    assert {one.shown_first for one in found if one != NONE} == {True, False}


def test_a_lenient_cloud_has_no_delays() -> None:
    schedule = Schedule(1, lenient=True)
    assert {schedule.next(kind) for kind in KINDS * 10} == {NONE}
