"""`bake --exclusive`: a second bake of a profile is refused, with the first's id."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest

from bake.steps.exclusive import NotAlone, refuse_second
from bake.steps.launch import launch_builder
from bake.undo import Undo
from tests.bake.one_run import OneRun


def at(year: int) -> str:
    """The id of a run of that year; EC2 remembers the client tokens of runs, so that each needs its own."""
    return f"{year}0101-000000-{secrets.token_hex(3)}"


def first(one_run: OneRun, year: int = 2026, lease: timedelta | None = None) -> OneRun:
    """Another bake of the profile, beside `one_run`."""
    other = OneRun(one_run.cloud, one_run.plan, replace(one_run.run, id=at(year)))
    if lease is not None:
        builder = other.plan.profile.builder.model_copy(update={"lease_hours": lease / timedelta(hours=1)})
        other.run.expires = lambda: other.witness.now() + lease
        other.plan = replace(other.plan, profile=other.plan.profile.model_copy(update={"builder": builder}))
    return other


@pytest.fixture
def second(one_run: OneRun) -> OneRun:
    return OneRun(one_run.cloud, one_run.plan, replace(one_run.run, id=at(2027), exclusive=True))


def test_the_second_is_refused_with_the_firsts_id(one_run: OneRun, second: OneRun) -> None:
    with Undo() as undo:
        earlier = first(one_run)
        builder = earlier.launch(undo)
        with pytest.raises(NotAlone, match=f"run {earlier.run.id} bakes g6e-ubuntu already: {builder.id}"):
            launch_builder(second.plan, second.aws, second.run, undo)
        assert second.left() == []


def test_a_later_run_does_not_end_an_earlier_one(one_run: OneRun, second: OneRun) -> None:
    with Undo() as undo:
        first(one_run, 2028).launch(undo)
        refuse_second(second.plan, second.aws, second.run)


def test_one_whose_lease_has_ended_refuses_nobody(one_run: OneRun, second: OneRun) -> None:
    with Undo() as undo:
        first(one_run, lease=timedelta(seconds=-5)).launch(undo)
        refuse_second(second.plan, second.aws, second.run)


def test_one_that_has_ended_refuses_nobody(one_run: OneRun, second: OneRun) -> None:
    with Undo() as undo:
        first(one_run).launch(undo)
    refuse_second(second.plan, second.aws, second.run)


def test_both_bake_where_neither_is_exclusive(one_run: OneRun, second: OneRun) -> None:
    beside = replace(second.run, exclusive=False)
    with Undo() as undo:
        first(one_run).launch(undo)
        assert launch_builder(second.plan, second.aws, beside, undo).id
