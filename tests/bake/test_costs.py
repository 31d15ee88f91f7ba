"""What a run cost: hours by its journal, prices by its plan."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bake import costs

NOW = datetime(2026, 11, 28, 18, 0, tzinfo=UTC)
BUILDER = {"event": "created", "kind": "instance", "name": "bake-1-builder", "what": "instance i-1"}
WORKER = {"event": "created", "kind": "instance", "name": "bake-1-2-boot-check", "what": "instance i-2"}


def at(hour: int, entry: dict[str, Any]) -> dict[str, Any]:
    return {"at": f"2026-11-28T{hour:02}:00:00Z", **entry}


def entries(builder: float | None = 2.0, worker: float | None = 3.0) -> list[dict[str, Any]]:
    prices = {"builder_hour": builder, "worker_hour": worker, "kept_month": 1.5}
    return [
        at(10, {"event": "run", "prices": prices}),
        at(10, {"event": "created", "kind": "key pair", "name": "k", "what": "key pair k"}),
        at(11, {**BUILDER, "what": "instance i-1 (bake-1-builder)"}),
        at(13, {"event": "removed", "what": "instance i-1"}),
        at(17, WORKER),
    ]


def test_each_instance_costs_its_hours_and_one_that_runs_those_so_far() -> None:
    found = costs.of(entries(), NOW)
    assert [(one.hours, one.dollars) for one in found.instances] == [(2, 4), (1, 3)]
    assert str(found) == "3.00 instance hours, $7.00; the AMI's snapshot costs $1.50 a month at most"


@pytest.mark.parametrize("unknown", ["builder", "worker"])
def test_an_unknown_price_makes_the_sum_unknown(unknown: str) -> None:
    found = costs.of(entries(**{unknown: None}), NOW)
    assert (found.hours, found.dollars) == (3, None)
    assert "price not known" in str(found)


def test_an_instance_that_was_taken_over_counts_once() -> None:
    found = costs.of([*entries(), at(12, BUILDER)], NOW)
    assert found.hours == 3


def test_an_interrupted_instance_costs_nothing_until_it_is_started_again() -> None:
    """One that ran all the time is told to run once more by each resume."""
    told = [at(11, BUILDER), at(12, {"event": "interrupted", "what": "instance i-1"})]
    assert costs.of(told, NOW).hours == 1
    started = {"event": "started", "what": "instance i-1"}
    assert costs.of([*told, at(16, started)], NOW).hours == 3
    assert costs.of([*told, at(16, started), at(17, started)], NOW).hours == 3


def test_a_run_without_instances_cost_nothing() -> None:
    assert costs.of([], NOW) == costs.Costs((), None)
    assert str(costs.of([], NOW)) == "0.00 instance hours, $0.00"
