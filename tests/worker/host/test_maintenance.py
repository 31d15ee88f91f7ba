"""Scheduled events of the instance: a reboot, a stop, a retirement, maintenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from flux_worker.host import maintenance
from flux_worker.host.interruption import InterruptionWatcher
from flux_worker.host.maintenance import LEAD, Event, UnreadableEvents, parse
from flux_worker.host.monitor import Monitor
from flux_worker.host.stop import Stopped, StopRequest
from tests.worker.conftest import serving, until
from tests.worker.host.conftest import Ec2, count

# As in EC2's documentation.
DOCUMENTED = """[
  {
    "NotBefore" : "21 Jan 2019 09:00:43 GMT",
    "Code" : "system-reboot",
    "Description" : "scheduled reboot",
    "EventId" : "instance-event-0d59937288b749b32",
    "NotAfter" : "21 Jan 2019 09:17:23 GMT",
    "State" : "active"
  }
]"""
BEGINS = datetime(2019, 1, 21, 9, 0, 43, tzinfo=UTC)
BOOTED = BEGINS - timedelta(days=9)


@pytest.fixture
def stop(stop: StopRequest) -> Iterator[StopRequest]:
    """The main thread is busy, and looks by itself."""
    with stop.deferred():
        yield stop


def event(seconds: float, **more: str) -> dict[str, str]:
    """An event so many seconds from now, as the metadata tells it."""
    begins = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
    found = {"NotBefore": begins.partition(", ")[2], "Code": "system-reboot", "State": "active"}
    return found | {"EventId": f"instance-event-{seconds:.0f}"} | more


def test_the_documented_event_is_read() -> None:
    ends = datetime(2019, 1, 21, 9, 17, 23, tzinfo=UTC)
    found = parse(DOCUMENTED)
    assert found == [Event("instance-event-0d59937288b749b32", "system-reboot", BEGINS, ends)]
    assert str(found[0]) == "system-reboot scheduled for 2019-01-21 09:00 UTC"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"State": "completed"}, id="completed"),
        pytest.param({"State": "canceled"}, id="canceled"),
        pytest.param({"Description": "[Completed] scheduled reboot"}, id="completed-by-its-description"),
        pytest.param({"Description": "[Canceled] scheduled reboot"}, id="canceled-by-its-description"),
    ],
)
def test_what_is_completed_or_canceled_is_no_event(more: dict[str, str]) -> None:
    assert parse(json.dumps([event(60) | more])) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("none", id="not-json"),
        pytest.param('{"Code": "system-reboot"}', id="not-a-list"),
        pytest.param('[{"Code": "system-reboot"}]', id="no-time"),
        pytest.param('[{"Code": "system-reboot", "NotBefore": "soon"}]', id="another-time"),
        pytest.param('[{"NotBefore": "21 Jan 2019 09:00:43 GMT"}]', id="no-code"),
        pytest.param("[7]", id="numbers"),
    ],
)
def test_what_is_not_readable_says_so(text: str) -> None:
    with pytest.raises(UnreadableEvents):
        parse(text)


@pytest.mark.parametrize(
    ("now", "booted", "due"),
    [
        pytest.param(BEGINS - timedelta(days=1), BOOTED, False, id="tomorrow"),
        pytest.param(BEGINS - LEAD, BOOTED, True, id="soon"),
        pytest.param(BEGINS + timedelta(minutes=9), BOOTED, True, id="in-its-window"),
        pytest.param(BEGINS + timedelta(minutes=30), BOOTED, False, id="after-its-window"),
        pytest.param(BEGINS + timedelta(minutes=9), BEGINS + timedelta(minutes=5), False, id="rebooted"),
    ],
)
def test_an_event_counts_from_some_time_before_it_until_it_is_over(
    now: datetime, booted: datetime, due: bool
) -> None:
    assert parse(DOCUMENTED)[0].is_due(now, booted) == due


def test_this_machine_booted_before_now() -> None:
    assert maintenance.booted() < datetime.now(UTC)


def test_receiving_stops_before_an_event_and_goes_on_if_it_is_canceled(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor
) -> None:
    ec2.maintenance(event(300), event(86_400))
    watch.start()
    until(lambda: stop.paused is not None, 10, "the pause")
    assert stop.paused and stop.paused.startswith("system-reboot scheduled for ")
    with pytest.raises(Stopped), stop.interruptible():
        pytest.fail("the poll began")
    assert not stop.requested, "a job in hand has all the time there is"
    ec2.maintenance(event(300, State="canceled"), event(86_400))
    until(lambda: stop.paused is None, 10, "the end of the pause")
    ec2.maintenance(event(200))
    until(lambda: stop.paused is not None, 10, "the pause for another event")
    with pytest.raises(Stopped), stop.interruptible():
        pytest.fail("the poll began")
    assert count(monitor, "maintenance") == 2


def test_of_two_events_one_that_is_over_leaves_the_other(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest
) -> None:
    reboot, retirement = event(300), event(400, Code="instance-retirement")
    ec2.maintenance(reboot, retirement)
    watch.start()
    until(lambda: stop.paused is not None, 10, "the pause")
    ec2.maintenance(retirement)
    until(lambda: "retirement" in (stop.paused or ""), 10, "the end of the first pause")


def test_an_event_of_tomorrow_stops_nothing_today(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, monitor: Monitor
) -> None:
    ec2.maintenance(event(86_400))
    watch.start()
    until(lambda: watch._on_instance, 10, "the first answer")
    assert not stop.wait(0.5)
    assert not stop.paused
    assert count(monitor, "maintenance") == 0


def test_events_that_are_not_readable_are_told_once_and_stop_nothing(
    ec2: Ec2, watch: InterruptionWatcher, stop: StopRequest, caplog: pytest.LogCaptureFixture
) -> None:
    ec2.tell("events/maintenance/scheduled", "soon")
    watch.start()
    until(lambda: "not readable" in caplog.text, 10, "the warning")
    assert not stop.wait(0.5)
    assert not stop.paused
    assert caplog.text.count("not readable") == 1
    ec2.maintenance(event(300))
    until(lambda: stop.paused is not None, 10, "the pause")


def test_a_worker_that_paused_for_an_event_receives_again(
    ec2: Ec2, environment: dict[str, str], aws: Any, tmp_path: Any
) -> None:
    """A canceled reboot: the job that waited meanwhile is drawn, by the same process."""
    own = environment | ec2.environment | {"AWS_EC2_METADATA_DISABLED": "false"}
    ec2.maintenance(event(600))
    with serving(own, tmp_path, "STATUS=Not receiving: system-reboot") as worker:
        aws.send({"id": "later", "prompt": "a cat", "width": 256, "height": 256, "steps": 1})
        ec2.maintenance()
        worker.wait_told("STATUS=Drawing later", 60)
        assert aws.event()["detail"]["id"] == "later"
        assert worker.stop() == 0
