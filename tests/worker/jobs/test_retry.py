"""Calls to AWS are retried with growing pauses while there is time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import flux_worker.jobs.retry
from flux_worker.backoff import Backoff
from flux_worker.errors import CorruptRecord, Interrupted
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.jobs.retry import RetryPolicy, pauses
from tests.worker.worker_harness import conflict, connection_lost


@pytest.fixture
def retry_policy(stop: Any, monkeypatch: pytest.MonkeyPatch) -> RetryPolicy:
    monkeypatch.setattr(flux_worker.jobs.retry, "PAUSES", Backoff(0.01, 0.01))
    return RetryPolicy(stop, Monitor(Notifier({})))


def failing(*errors: Exception) -> Any:
    """Raises these, one a call, then gives "done"."""
    left = list(errors)

    def act() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return act


def test_pauses_grow_to_half_a_minute_and_are_never_the_same_for_all() -> None:
    for number, pause in enumerate(itertools.islice(pauses(), 2_000)):
        longest = min(2.0 ** min(number, 16), 30)
        assert longest / 2 <= pause <= longest
    assert len({next(pauses()) for _ in range(10)}) > 1


def test_what_passes_is_tried_until_it_works(retry_policy: RetryPolicy) -> None:
    assert retry_policy.call("it", failing(connection_lost(), conflict())) == "done"


def test_what_does_not_pass_is_not_tried_again(retry_policy: RetryPolicy) -> None:
    with pytest.raises(CorruptRecord):
        retry_policy.call("it", failing(CorruptRecord("never")))


def test_at_the_end_there_are_tries_while_there_is_time(retry_policy: RetryPolicy, stop: Any) -> None:
    with stop.deferred():
        stop.request("SIGTERM", 90)
        assert retry_policy.call("it", failing(connection_lost(), connection_lost())) == "done"
        with pytest.raises(Interrupted, match=r"the worker must stop \(SIGTERM\)"):
            retry_policy.call("it", failing(connection_lost()), while_stopping=False)
        stop.request("spot", 2.5)
        with pytest.raises(Interrupted):
            retry_policy.call("it", failing(*[connection_lost()] * 10_000))


def test_a_watchdog_hears_of_it_while_it_waits(stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    waits: list[float] = []
    wait = stop.wait
    monkeypatch.setattr(stop, "wait", lambda seconds: waits.append(seconds) or wait(seconds))
    monitor = Monitor(Notifier({"WATCHDOG_USEC": "3000000"}))
    monkeypatch.setattr(monitor, "doing", told.append)
    RetryPolicy(stop, monitor).wait(1.2, "Trying again: it")
    assert max(waits) <= 1, "a third of what the watchdog allows"
    assert told == ["Trying again: it"] * len(waits)
