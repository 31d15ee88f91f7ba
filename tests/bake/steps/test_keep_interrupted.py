"""What fails because EC2 took the builder back is told as that, and the run's things are left to a resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bake.creation import stamp
from bake.errors import BakeError, NotVerified, Resumable
from bake.instance import is_interrupted
from bake.journal import Journal
from bake.ssh import Login
from bake.steps import keep_interrupted, take_over
from bake.steps.create_image import stop
from bake.steps.keep_interrupted import MARKED, kept
from bake.steps.launch import Instance
from bake.steps.seal import SEALED
from bake.systems import SYSTEMS
from bake.undo import Undo
from tests.plans import changed

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun

EXPIRES = "2026-11-28T21:37:53Z"
STOPPED = {
    "State": {"Name": "stopped"},
    "StateReason": {"Code": "Server.SpotInstanceShutdown"},
    "Tags": [{"Key": "bake:expires", "Value": EXPIRES}],
}
RUNNING = {"State": {"Name": "running"}, "SpotInstanceRequestId": "sir-12345678"}
BY_USER = {"State": {"Name": "stopped"}, "StateReason": {"Code": "Client.UserInitiatedShutdown"}}
BUILDER = Instance("i-0", "vol-0", Login("192.0.2.1", "ubuntu", "", ""), SYSTEMS["ubuntu"])


@pytest.fixture
def spot(one_run: OneRun) -> OneRun:
    profile = one_run.plan.profile
    builder = profile.builder.model_copy(update={"market": "spot"})
    return dataclasses.replace(
        one_run, plan=changed(one_run.plan, profile.model_copy(update={"builder": builder}))
    )


def ec2_says(
    monkeypatch: pytest.MonkeyPatch, *states: dict[str, Any] | None, code: str = "fulfilled"
) -> None:
    """One state after the other; the last one stays."""
    left = list(states)

    def describe(*_: Any) -> Any:
        return left.pop(0) if len(left) > 1 else left[0]

    for module in (keep_interrupted, take_over):
        monkeypatch.setattr(module, "describe", describe)
    monkeypatch.setattr(keep_interrupted, "_request", lambda aws, facts: code)


def removed(run: OneRun, error: Exception) -> Iterator[str]:
    """What is removed when a block fails with this error; then the error that comes out."""
    gone: list[str] = []
    with pytest.raises(Exception) as raised, Undo() as undo:
        undo.add("the builder", lambda: gone.append("the builder"), by_hand="")
        with kept(BUILDER, run.plan, run.aws, run.run, undo):
            raise error
    yield from gone
    yield f"{type(raised.value).__name__}: {raised.value}"


@pytest.mark.parametrize(
    "error", [NotVerified("a check failed"), BakeError("no connection"), ValueError("x")], ids=repr
)
def test_whatever_fails_then_is_the_interruption(
    spot: OneRun, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    ec2_says(monkeypatch, STOPPED)
    (told,) = removed(spot, error)
    assert told.startswith("BuilderInterrupted: EC2 interrupted the spot builder i-0 and stopped it")
    assert EXPIRES in told


def test_it_ends_with_5_and_tells_how_to_go_on(spot: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    ec2_says(monkeypatch, STOPPED)
    with pytest.raises(Resumable) as raised, kept(BUILDER, spot.plan, spot.aws, spot.run, Undo()):
        raise BakeError("x")
    assert raised.value.exit_code == 5
    assert f"`bake resume {spot.run.id}` waits until EC2" in str(raised.value.hint)


def test_a_builder_that_is_about_to_stop_is_waited_for(spot: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine goes down before EC2's state of it is everywhere."""
    ec2_says(monkeypatch, RUNNING, RUNNING, RUNNING, STOPPED, code=MARKED)
    (told,) = removed(spot, BakeError("no connection"))
    assert told.startswith("BuilderInterrupted")


@pytest.mark.parametrize("facts", [RUNNING, BY_USER, None], ids=["running", "by-user", "gone"])
def test_what_is_no_interruption_stays_what_it_is(
    spot: OneRun, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any] | None
) -> None:
    ec2_says(monkeypatch, facts)
    assert list(removed(spot, BakeError("a script failed"))) == ["the builder", "BakeError: a script failed"]


def test_on_demand_nothing_is_asked(one_run: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_interrupted, "describe", None)
    assert list(removed(one_run, BakeError("x"))) == ["the builder", "BakeError: x"]


def test_without_an_answer_the_first_error_counts(spot: OneRun) -> None:
    spot.fault("DescribeInstances", "refuse", times=None)
    assert list(removed(spot, BakeError("x"))) == ["the builder", "BakeError: x"]


def test_during_the_seal_nothing_is_kept(spot: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could log in to it and see how far the seal was."""
    ec2_says(monkeypatch, STOPPED)
    journal = Journal(spot.run.directory)
    journal.begin("run")
    journal.write("step", step="seal")
    assert list(removed(spot, BakeError("x"))) == ["the builder", "BakeError: x"]


def test_one_that_ec2_does_not_start_within_the_lease_is_lost(
    spot: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2_says(monkeypatch, STOPPED)
    soon = spot.aws.now() + timedelta(seconds=1)
    with pytest.raises(
        take_over.Lost, match="EC2 did not start its interrupted builder i-0 within the lease"
    ):
        take_over._wait_until_running(spot.plan, spot.aws, spot.run, "i-0", soon)


def test_one_that_a_user_stopped_is_started(spot: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(take_over, "_start", lambda aws, instance: started.append(instance))
    ec2_says(monkeypatch, BY_USER, BY_USER, RUNNING)
    take_over._wait_until_running(spot.plan, spot.aws, spot.run, "i-0", None)
    assert started == ["i-0"]


def test_only_a_stop_by_ec2_is_an_interruption() -> None:
    assert is_interrupted(STOPPED)  # type: ignore[arg-type]
    assert not is_interrupted({**STOPPED, "State": {"Name": "running"}})  # type: ignore[typeddict-item]
    assert not is_interrupted(BY_USER)  # type: ignore[arg-type]
    assert not is_interrupted(None)


@pytest.mark.parametrize(("since", "refused"), [(-30, True), (30, False)], ids=["before-a-start", "after-it"])
def test_a_sealed_builder_that_was_started_again_is_not_stopped_for_an_image(
    one_run: OneRun, since: int, refused: bool
) -> None:
    """EC2 starts a spot builder that it interrupted between the seal and the stop."""
    with Undo() as undo:
        builder = one_run.launch(undo)
        one_run.run.remember(SEALED, str, stamp(one_run.aws.now() + timedelta(seconds=since)))
        with pytest.raises(BakeError, match="was started again at") if refused else nullcontext():
            stop(one_run.aws, one_run.run, builder)
