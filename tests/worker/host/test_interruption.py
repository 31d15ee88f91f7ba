"""Spot notices, rebalance recommendations and lifecycle hooks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flux_worker.host import interruption
from flux_worker.host.imds import Imds
from flux_worker.host.interruption import InterruptionWatcher, parse_notice
from flux_worker.host.monitor import Monitor
from flux_worker.host.stop import Stopped, StopRequest
from tests.worker.conftest import serving, until
from tests.worker.host.conftest import Ec2, count


@pytest.fixture
def stop(stop: StopRequest) -> Iterator[StopRequest]:
    """The main thread is busy, and looks by itself."""
    with stop.deferred():
        yield stop


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


def test_a_rebalance_recommendation_pauses_where_a_group_may_replace_the_instance(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor, group: str
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


def test_a_pause_for_a_replacement_that_does_not_come_ends(
    ec2: Ec2,
    watch: InterruptionWatcher,
    stop: StopRequest,
    monitor: Monitor,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A group launches none that is not better, and the instance would be idle for as long as it lives."""
    monkeypatch.setattr(interruption, "REBALANCE_SECONDS", 1.0)
    ec2.tell("events/recommendations/rebalance", "{}")
    watch.start()
    until(lambda: count(monitor, "rebalance") == 1, 10, "the recommendation")
    until(lambda: stop.paused is None, 10, "the end of the pause")
    assert not stop.requested


def test_alone_the_worker_draws_on_until_the_notice(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor
) -> None:
    ec2.tell("events/recommendations/rebalance", "{}")
    watch.start()
    until(lambda: count(monitor, "rebalance") == 1, 10, "the recommendation")
    assert not stop.paused
    ec2.spot(seconds=120)
    assert stop.wait(60)


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
    ec2.tell("autoscaling/target-lifecycle-state", "InService")
    with serving(own, tmp_path) as worker:
        ec2.tell("events/recommendations/rebalance", "{}")
        worker.wait_told("STATUS=Not receiving: rebalance recommendation")
        aws.send({"id": "not-now", "prompt": "a cat", "width": 256, "height": 256, "steps": 1})
        ec2.spot(seconds=60)
        assert worker.process.wait(120) == 0
    assert aws.left() == 1
    assert not any(line.get("job") == "not-now" for line in worker.lines())
    assert any(line["message"].startswith("stopped: spot terminate") for line in worker.lines())
