"""Lifecycle hooks: when they are completed, and how long a job in hand has because of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_worker.host import interruption
from flux_worker.host.imds import Imds
from flux_worker.host.interruption import InterruptionWatcher
from flux_worker.host.monitor import Monitor
from flux_worker.host.siblings import Siblings
from flux_worker.host.stop import StopRequest
from tests.worker.conftest import until
from tests.worker.host.conftest import Ec2, count, put_hook


@pytest.fixture
def stop(stop: StopRequest) -> Iterator[StopRequest]:
    """The main thread is busy, and looks by itself."""
    with stop.deferred():
        yield stop


@pytest.mark.parametrize("target", ["Terminated", "Warmed:Terminated"])
@pytest.mark.parametrize(
    ("timeouts", "least", "most"),
    [
        pytest.param((), 60, 90, id="no-hook"),  # SIGTERM follows, and leaves as much
        pytest.param((600,), 500, 590, id="one-hook"),
        pytest.param((600, 300), 200, 290, id="the-shorter-of-two"),
        pytest.param((30,), 60, 90, id="shorter-than-the-drain"),
    ],
)
def test_a_job_in_hand_has_the_time_that_the_hooks_leave(
    ec2: Ec2,
    watch: InterruptionWatcher,
    stop: StopRequest,
    monitor: Monitor,
    group: str,
    scaling: Any,
    target: str,
    timeouts: tuple[int, ...],
    least: float,
    most: float,
) -> None:
    for hook in ("over", "drained"):
        scaling.delete_lifecycle_hook(AutoScalingGroupName=group, LifecycleHookName=hook)
    for number, seconds in enumerate(timeouts):
        put_hook(scaling, group, f"drained-{number}", "TERMINATING", HeartbeatTimeout=seconds)
    watch.start()
    assert not stop.wait(0.1)
    ec2.tell("autoscaling/target-lifecycle-state", target)
    assert stop.wait(60)
    assert stop.why == "Auto Scaling"
    assert least < stop.remaining() <= most
    assert count(monitor, "autoscaling") == 1


def test_without_an_answer_of_auto_scaling_the_drain_is_the_usual_one(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, group: str
) -> None:
    (ec2.folder / "deny").touch()
    ec2.tell("autoscaling/target-lifecycle-state", "Terminated")
    watch.start()
    assert stop.wait(60)
    assert 60 < stop.remaining() <= 90


@pytest.mark.parametrize(
    ("before", "state"),
    [
        pytest.param("Pending", "Pending:Wait", id="launching"),
        pytest.param("Pending", "Warmed:Pending:Wait", id="warm-pool"),
        pytest.param("", "Pending:Wait", id="told-late"),  # the group does not know its new instance yet
    ],
)
def test_a_launching_hook_is_completed_once_the_worker_is_ready(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, group: str, before: str, state: str
) -> None:
    ec2.state(before)
    watch.start()
    assert not stop.wait(0.1)
    watch.on_ready()
    assert not stop.wait(0.1)
    assert ec2.completed() == []
    ec2.state(state)
    until(lambda: ec2.completed() == ["ready CONTINUE"], 10, "the hook to be completed")
    assert not stop.wait(0.1)
    assert len(ec2.completed()) == 1


def test_a_terminating_hook_is_completed_after_the_drain(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch.start()
    ec2.tell("autoscaling/target-lifecycle-state", "Terminated")
    ec2.state("Terminating:Wait")
    assert stop.wait(60)
    assert ec2.completed() == []
    watch.on_drained()
    assert ec2.completed() == ["drained CONTINUE"]
    assert "lifecycle hook over" in caplog.text  # somebody else completed it; the next one is seen to


def test_a_stop_by_hand_completes_nothing(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, group: str
) -> None:
    ec2.state("Terminating:Wait")
    watch.start()
    until(lambda: watch._on_instance, 10, "the first answer")
    stop.request("SIGTERM", 90)
    watch.on_drained()
    assert ec2.completed() == []


def test_without_permission_it_is_said_once(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    (ec2.folder / "deny").touch()
    ec2.state("Pending:Wait")
    watch.start()
    watch.on_ready()
    until(lambda: "wait for their timeout" in caplog.text, 20, "the warning")
    (ec2.folder / "deny").unlink()
    assert not stop.wait(0.1)
    assert caplog.text.count("wait for their timeout") == 1
    assert ec2.completed() == []


def test_what_may_pass_is_tried_again(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An instance whose launching hook is never completed is ended by its group."""
    ec2.state("Pending:Wait")
    (ec2.folder / "state").rename(ec2.folder / "gone")  # the stand-in breaks the connection off
    watch.start()
    watch.on_ready()
    until(lambda: "are retried" in caplog.text, 20, "the warning")
    ec2.state("Pending:Wait")
    until(lambda: ec2.completed() == ["ready CONTINUE"], 20, "the hook to be completed")
    assert caplog.text.count("lifecycle hooks of") == 1


def test_a_root_volume_is_replaced_after_the_drain(
    ec2: Ec2,
    watch: InterruptionWatcher,
    stop: StopRequest,
    monitor: Monitor,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The metadata's target state says nothing of it: Auto Scaling is asked."""
    monkeypatch.setattr(interruption, "ASK_EVERY_SECONDS", 0.05)
    watch.start()
    assert not stop.wait(0.1)
    ec2.state("ReplacingRootVolume")
    assert stop.wait(60)
    assert stop.why == "root volume replacement"
    assert stop.remaining() > 90, "the hook's timeout is moto's, an hour"
    assert count(monitor, "root_volume") == 1
    assert ec2.completed() == []
    ec2.state("ReplacingRootVolume:Wait")
    watch.on_drained()
    assert ec2.completed() == ["drained CONTINUE"]


@pytest.mark.parametrize("first", ["ReplacingRootVolume:Proceed", "RootVolumeReplaced"])
def test_on_the_new_volume_the_worker_draws_and_completes_the_launching_hook(
    ec2: Ec2,
    watch: InterruptionWatcher,
    stop: StopRequest,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    monkeypatch.setattr(interruption, "ASK_EVERY_SECONDS", 0.05)
    ec2.state(first)
    watch.start()
    watch.on_ready()
    assert not stop.wait(0.5)
    assert ec2.completed() == []
    ec2.state("Pending:Wait")
    until(lambda: ec2.completed() == ["ready CONTINUE"], 10, "the hook to be completed")
    assert not stop.requested


def test_a_role_that_may_not_ask_is_told_once_and_the_worker_draws(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    (ec2.folder / "deny").touch()
    ec2.state("ReplacingRootVolume:Wait")
    watch.start()
    until(lambda: "wait for their timeout" in caplog.text, 20, "the warning")
    assert not stop.wait(0.1)
    assert caplog.text.count("lifecycle hooks of") == 1


@pytest.fixture
def two(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor, tmp_path: Path
) -> tuple[InterruptionWatcher, Siblings]:
    """A watcher of one of two workers, and what the other one says."""
    folder = tmp_path / "run"
    folder.mkdir()
    watch._siblings = Siblings(folder, 2, "0")
    return watch, Siblings(folder, 2, "1")


def test_the_launching_hook_waits_for_all_workers(
    ec2: Ec2, two: tuple[InterruptionWatcher, Siblings], stop: StopRequest, monitor: Monitor, group: str
) -> None:
    """Whatever the status says of AWS: a new instance would not help there."""
    watch, other = two
    ec2.state("Pending:Wait")
    monitor.blocked("receiving", "Cannot receive: AccessDenied")
    watch.start()
    watch.on_ready()
    assert not stop.wait(0.5)
    assert ec2.completed() == []
    other.ready()
    until(lambda: ec2.completed() == ["ready CONTINUE"], 10, "the hook to be completed")


def test_a_worker_that_is_gone_is_not_ready(
    ec2: Ec2, two: tuple[InterruptionWatcher, Siblings], stop: StopRequest, group: str
) -> None:
    """It crashed after READY, and loads the model again, or never will."""
    watch, other = two
    other.ready()
    other.leave()
    ec2.state("Pending:Wait")
    watch.start()
    watch.on_ready()
    assert not stop.wait(0.5)
    assert ec2.completed() == []


def test_the_first_worker_to_drain_completes_nothing_and_the_last_one_does(
    ec2: Ec2,
    two: tuple[InterruptionWatcher, Siblings],
    stop: StopRequest,
    monitor: Monitor,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, other = two
    watch.start()
    ec2.tell("autoscaling/target-lifecycle-state", "Terminated")
    ec2.state("Terminating:Wait")
    assert stop.wait(60)
    monkeypatch.setattr(interruption, "_LAST_SECONDS", 2)
    watch.on_drained()
    assert ec2.completed() == []
    last = InterruptionWatcher(
        stop, monitor, Imds(ec2.environment), region=None, drain_seconds=90, siblings=other
    )
    last._on_instance = True
    monkeypatch.setattr(interruption, "_LAST_SECONDS", 60)
    last.on_drained()
    assert set(ec2.completed()) == {"drained CONTINUE"}
