"""Spot notices, rebalance recommendations and lifecycle hooks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from flux_worker.host import autoscaling, interruption
from flux_worker.host.imds import Imds
from flux_worker.host.interruption import InterruptionWatcher, parse_notice
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.host.stop import Stopped, StopRequest
from tests.worker.conftest import CREDENTIALS, serving, until
from tests.worker.host.conftest import REGION, Ec2


@pytest.fixture
def stop(stop: StopRequest) -> Iterator[StopRequest]:
    """The main thread is busy, and looks by itself."""
    with stop.deferred():
        yield stop


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(Notifier({}))


@pytest.fixture
def watch(
    ec2: Ec2, stop: StopRequest, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InterruptionWatcher]:
    monkeypatch.setattr(interruption, "LOOK_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(interruption, "_LAST_SECONDS", 60)
    # A call that is given up is made again, and a hook would be completed twice.
    monkeypatch.setattr(autoscaling, "_CONNECT_SECONDS", 60)
    monkeypatch.setattr(autoscaling, "_READ_SECONDS", 60)
    imds = Imds(ec2.environment, patience=60)
    watching = InterruptionWatcher(stop, monitor, imds, region=None, drain_seconds=90)
    yield watching
    watching._on_instance = False
    # It sends signals, which only have a handler while `stop` lives.
    for thread in threading.enumerate():
        if thread.name == "interruption":
            thread.join(60)
            assert not thread.is_alive()


def count(monitor: Monitor, kind: str) -> float | None:
    return monitor.registry.get_sample_value("flux_interruptions_total", {"kind": kind})


def test_a_spot_notice_asks_to_end_in_time(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor
) -> None:
    watch.start()
    assert not stop.wait(0.1)
    ec2.spot(seconds=120)
    assert stop.wait(60)
    assert stop.why and stop.why.startswith("spot terminate at ")
    assert 60 < stop.remaining() <= 110
    assert count(monitor, "spot") == 1


def test_a_later_notice_shortens_the_time(ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest) -> None:
    watch.start()
    stop.request("SIGTERM", 90)
    ec2.spot(seconds=60)
    until(lambda: stop.remaining() < 50, 10, "the notice to be seen")


def test_a_rebalance_recommendation_pauses(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor
) -> None:
    watch.start()
    ec2.tell("events/recommendations/rebalance", '{"noticeTime": "2026-11-22T08:22:00Z"}')
    until(lambda: stop.paused is not None, 10, "the pause")
    with pytest.raises(Stopped), stop.interruptible():
        pytest.fail("the poll began")
    assert not stop.requested
    assert not stop.wait(0.1)
    assert count(monitor, "rebalance") == 1
    ec2.spot(seconds=120)
    assert stop.wait(60)


def test_auto_scaling_asks_to_end(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor
) -> None:
    ec2.tell("autoscaling/target-lifecycle-state", "InService")
    watch.start()
    assert not stop.wait(0.1)
    ec2.tell("autoscaling/target-lifecycle-state", "Terminated")
    assert stop.wait(60)
    assert 60 < stop.remaining() <= 90
    assert count(monitor, "autoscaling") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param('{"action": "hibernate", "time": "2020-01-01T00:00:00Z"}', 0, id="now"),
        pytest.param("terminate soon", 0, id="not-json"),
        pytest.param('{"action": "stop", "time": "soon"}', 0, id="no-time"),
    ],
)
def test_a_notice_that_leaves_no_time_or_tells_none_ends_at_once(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, text: str, seconds: float
) -> None:
    ec2.tell("spot/instance-action", text)
    watch.start()
    assert stop.wait(60)
    assert stop.remaining() == seconds


def test_a_notice_is_read() -> None:
    assert parse_notice('{"action": "stop", "time": "2026-11-22T08:22:00Z"}') == (
        "stop",
        datetime(2026, 11, 22, 8, 22, tzinfo=UTC),
    )


def test_a_service_that_falls_silent_is_asked_on(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flux_worker.host.interruption")
    watch.start()
    until(lambda: "watching for interruptions" in caplog.text, 10, "the first answer")
    (ec2.folder / "refuse").touch()
    until(lambda: "stopped answering" in caplog.text, 10, "the silence to be noticed")
    assert not stop.wait(0.1)
    assert caplog.text.count("stopped answering") == 1
    (ec2.folder / "refuse").unlink()
    (ec2.folder / "forget").touch()  # a token that is no longer taken is renewed
    until(lambda: "answers again" in caplog.text, 10, "the answer")
    ec2.spot(seconds=120)
    assert stop.wait(60)


def test_where_no_service_answers_it_is_said_once_and_looked_for_until_the_end(
    stop: StopRequest, monitor: Monitor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(interruption, "LOOK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(interruption, "SELDOM_SECONDS", 0.01)
    caplog.set_level("INFO", "flux_worker.host.interruption")
    imds = Imds({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"})
    watch = InterruptionWatcher(stop, monitor, imds, region=None, drain_seconds=90)
    looking = threading.Thread(target=watch._run)
    looking.start()
    until(lambda: "unless this changes" in caplog.text, 30, "the first tries")
    watch.on_ready()
    assert not stop.wait(0.1)
    assert caplog.text.count("no spot notices and no lifecycle hooks") == 1
    assert looking.is_alive()
    stop.request("SIGTERM", 90)
    looking.join(60)
    assert not looking.is_alive()
    watch.on_drained()


def test_a_service_that_comes_late_is_found(
    ec2: Ec2,
    watch: InterruptionWatcher,
    stop: StopRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(interruption, "SELDOM_SECONDS", 0.01)
    caplog.set_level("INFO", "flux_worker.host.interruption")
    (ec2.folder / "refuse").touch()
    watch.start()
    until(lambda: "unless this changes" in caplog.text, 30, "the first tries")
    ec2.spot(seconds=120)
    (ec2.folder / "refuse").unlink()
    assert stop.wait(60)
    assert "watching for interruptions of i-0123456789abcdef0" in caplog.text


def test_where_it_is_forbidden_the_thread_ends(
    stop: StopRequest, monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flux_worker.host.interruption")
    imds = Imds({"AWS_EC2_METADATA_DISABLED": "true"})
    InterruptionWatcher(stop, monitor, imds, region=None, drain_seconds=90)._run()
    assert caplog.text.count("no spot notices and no lifecycle hooks here") == 1


@pytest.fixture
def group(ec2: Ec2, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The instance is one of an Auto Scaling group with hooks for both changes."""
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": ec2.endpoint}).items():
        monkeypatch.setenv(name, value)
    service: Any = {"endpoint_url": endpoint, "region_name": REGION}
    scaling = boto3.client("autoscaling", **service)
    name = ec2.folder.parent.name
    scaling.create_launch_configuration(
        LaunchConfigurationName=name, ImageId="ami-0123456789abcdef0", InstanceType="g6e.xlarge"
    )
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchConfigurationName=name,
        MinSize=1,
        MaxSize=1,
        AvailabilityZones=[f"{REGION}a"],
    )
    for hook, change in (("ready", "LAUNCHING"), ("over", "TERMINATING"), ("drained", "TERMINATING")):
        scaling.put_lifecycle_hook(
            AutoScalingGroupName=name,
            LifecycleHookName=hook,
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{change}",
        )
    found = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    ec2.tell("instance-id", found["Instances"][0]["InstanceId"])
    ec2.tell("autoscaling/target-lifecycle-state", "InService")
    yield name
    scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


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


def test_nothing_ends_the_looking(
    ec2: Ec2,
    watch: InterruptionWatcher,
    stop: StopRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> bool:
        raise ZeroDivisionError

    watch._checks.insert(0, broken)
    watch.start()
    until(lambda: "checking for interruptions failed" in caplog.text, 10, "the failure")
    watch._checks.remove(broken)
    ec2.spot(seconds=120)
    assert stop.wait(60)


def test_a_worker_lets_go_when_it_is_told(
    ec2: Ec2, environment: dict[str, str], aws: Any, tmp_path: Path
) -> None:
    """A recommendation stops the receiving, the notice ends the process, with exit code 0."""
    own = environment | ec2.environment | {"AWS_EC2_METADATA_DISABLED": "false"}
    with serving(own, tmp_path) as worker:
        ec2.tell("events/recommendations/rebalance", "{}")
        worker.wait_told("STATUS=Not receiving: rebalance recommendation")
        aws.send({"id": "not-now", "prompt": "a cat", "width": 256, "height": 256, "steps": 1})
        ec2.spot(seconds=60)
        assert worker.process.wait(120) == 0
    assert aws.left() == 1
    assert not any(line.get("job") == "not-now" for line in worker.lines())
    assert any(line["message"].startswith("stopped: spot terminate") for line in worker.lines())
