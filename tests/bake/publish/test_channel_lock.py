"""The lock of a channel: who holds it, who takes it over, and that it goes with whoever holds it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from bake.aws import Aws
from bake.errors import LeftBehind
from bake.publish import channel_lock
from bake.publish.channel_lock import Locked, holder, locked
from tests.localcloud.api.conftest import Account

from .channel_account import Bench
from .conftest import clients

pytestmark = pytest.mark.integration
HOURS = timedelta(hours=1)


@pytest.fixture
def bench(aws: Aws, witness: Aws) -> Bench:
    return Bench.new(aws, witness)


def leave(bench: Bench, run: str = "dead") -> None:
    """A lock as a run leaves it that was killed."""
    told = {"who": "arn:aws:iam::123456789012:role/dead", "when": "then", "run": run, "instead_of": ""}
    bench.witness.ssm.put_parameter(Name=bench.channel.lock, Value=json.dumps(told), Type="String")


def old(monkeypatch: pytest.MonkeyPatch, aws: Aws, age: timedelta = HOURS) -> None:
    """Let AWS's clock be ahead of the lock, whatever this machine's says."""
    now = aws.now() + age
    monkeypatch.setattr(aws, "now", lambda: now)


def test_it_is_held_for_the_block_and_says_by_whom(bench: Bench) -> None:
    with locked(bench.aws, bench.channel, "one", bench.said.append):
        there = holder(bench.witness, bench.channel)
        assert there is not None
        assert (there.who, there.run) == ("arn:aws:iam::123456789012:root", "one")
        with pytest.raises(Locked) as error, locked(bench.aws, bench.channel, "two", bench.said.append):
            pytest.fail("it is held")
        assert f"is being changed by {there.who}, since 20" in error.value.message
        assert f"aws ssm delete-parameter --region eu-north-1 --endpoint-url {bench.aws.endpoint}" in str(
            error.value.hint
        )
        assert holder(bench.witness, bench.channel) == there
    assert (holder(bench.witness, bench.channel), bench.said) == (None, [])


def test_it_goes_when_the_block_fails(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError), locked(bench.aws, bench.channel, "one", bench.said.append):
        raise ZeroDivisionError
    assert bench.locks() == []


def test_one_that_a_dead_run_left_is_taken_over_after_a_while_and_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(bench)
    with pytest.raises(Locked, match="role/dead"), locked(bench.aws, bench.channel, "one", bench.said.append):
        pytest.fail("it is held")
    old(monkeypatch, bench.aws)
    with locked(bench.aws, bench.channel, "one", bench.said.append):
        there = holder(bench.witness, bench.channel)
        assert there is not None
        assert (there.run, there.instead_of) == ("one", "dead")
    assert bench.locks() == []
    [said] = bench.said
    assert said.startswith("arn:aws:iam::123456789012:role/dead has held the lock of stable for 60 minutes")


def test_this_machines_clock_is_not_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it the lock would be an hour old."""
    leave(bench)
    bench.aws.ask_clock()
    ahead = bench.aws.clock.ahead
    assert ahead is not None
    real = channel_lock.Aws.now(bench.aws)

    class Wrong(type(real)):  # type: ignore[misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + HOURS

    monkeypatch.setattr("bake.aws.datetime", Wrong)
    with pytest.raises(Locked), locked(bench.aws, bench.channel, "one", bench.said.append):
        pytest.fail("it is held")


def test_what_is_no_lock_of_bakes_is_somebodys_and_is_taken_over_by_age(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.witness.ssm.put_parameter(Name=bench.channel.lock, Value="hands off", Type="String")
    with pytest.raises(Locked, match="somebody"), locked(bench.aws, bench.channel, "one", bench.said.append):
        pytest.fail("it is held")
    old(monkeypatch, bench.aws)
    with locked(bench.aws, bench.channel, "one", bench.said.append):
        pass
    assert bench.locks() == []


def test_of_many_who_take_over_a_dead_ones_at_once_one_does(served: Account, bench: Bench) -> None:
    leave(bench)
    there = holder(bench.witness, bench.channel)
    assert there is not None
    found = [channel_lock._Lock(clients(served), bench.channel, run, run) for run in map(str, range(6))]
    barrier = threading.Barrier(len(found))

    def take(lock: channel_lock._Lock) -> bool:
        barrier.wait()
        try:
            lock._take_over(there)
        except Locked:
            return False
        return True

    with ThreadPoolExecutor(len(found)) as pool:
        took = list(pool.map(take, found))
    assert took.count(True) == 1
    assert len(bench.locks()) == 1
    found[took.index(True)].release()  # whoever's value stands there
    assert bench.locks() == []


def test_a_lock_that_another_wrote_over_too_late_is_still_its_holders(bench: Bench) -> None:
    """Of two who took over the same one, the second stops, but its value stands there."""
    leave(bench)
    lock = channel_lock._Lock(bench.aws, bench.channel, "first", "one")
    there = holder(bench.witness, bench.channel)
    assert there is not None
    lock._take_over(there)
    late = channel_lock._Lock(bench.aws, bench.channel, "second", "two")
    with pytest.raises(Locked, match="another run, since a moment ago"):
        late._take_over(there)
    now = holder(bench.witness, bench.channel)
    assert now is not None
    assert now.run == "second"
    lock.release()
    assert bench.locks() == []


def test_a_lock_that_was_taken_over_is_left_to_its_new_holder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(bench.aws, bench.channel, "slow", bench.said.append):
        there = holder(bench.witness, bench.channel)
        assert there is not None
        channel_lock._Lock(bench.witness, bench.channel, "next", "two")._take_over(there)
    now = holder(bench.witness, bench.channel)
    assert now is not None
    assert now.run == "next"


def test_a_lock_that_can_not_be_removed_is_named_with_the_command(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_lock._Lock, "release", _refused)
    with pytest.raises(LeftBehind) as error, locked(bench.aws, bench.channel, "one", bench.said.append):
        pass
    assert f"the lock {bench.channel.lock} could not be removed (no)" in error.value.message
    assert channel_lock.by_hand(bench.aws, bench.channel) in error.value.message


def _refused(*_: Any) -> None:
    raise RuntimeError("no")
