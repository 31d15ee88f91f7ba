"""Each wait tells what is waited for and since when, at a steady rhythm."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.localcloud.api.faults.faults import AwsFault
from bake.progress import PlainScreen, Progress
from bake.waits import Wait, Waits, span
from tests.screens import Seen

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def watched() -> tuple[Progress, Seen]:
    seen = Seen()
    progress = Progress(seen)
    progress.tally.waits.first = 0.2
    return progress, seen


def test_a_wait_that_lasts_is_told_again_and_again_with_its_start() -> None:
    progress, seen = watched()
    with progress.tally.waiting("AMI ami-1", 600) as wait:
        until(lambda: len(seen.of("waiting")) == 2)
        wait.say("40%")
        until(lambda: len(seen.of("waiting")) == 3)
    first, second, third = seen.of("waiting")
    assert (first["what"], first["limit"]) == ("AMI ami-1", 600)
    began = datetime.fromisoformat(first["since"])
    assert abs(datetime.now(UTC) - began) < timedelta(minutes=1)
    assert second["since"] == first["since"]
    assert second["seconds"] - first["seconds"] >= 0.2
    assert third["detail"] == "40%"
    assert third["text"].startswith("waiting for AMI ami-1 since ")
    assert "10 min at most): 40%" in third["text"]
    assert seen.of("waited")[0]["what"] == "AMI ami-1"


def test_what_is_over_soon_is_not_told() -> None:
    progress, seen = watched()
    for _ in range(20):
        with progress.tally.waiting("a call"):
            pass
    until(lambda: progress.tally.waits._teller is None)
    assert seen.events == []


def test_what_is_known_is_told_at_once_the_first_time() -> None:
    told: list[str] = []
    waits = Waits(lambda wait: told.append(str(wait)), first=3600)
    with waits.one("cloud-init") as wait:
        wait.say("apt-daily.service")
        wait.say("snapd.service")
        waits.say("the innermost wait of the thread")
    assert len(told) == 1
    assert told[0].endswith(": apt-daily.service")


def test_several_threads_that_wait_for_one_thing_tell_it_once() -> None:
    progress, seen = watched()
    over = threading.Event()

    def follow() -> None:
        with progress.tally.waiting("bake-prefetch to end"):
            over.wait(60)

    thread = threading.Thread(target=follow)
    thread.start()
    with progress.tally.waiting("bake-prefetch to end"), progress.tally.waiting("something else"):
        until(lambda: len(seen.of("waiting")) >= 6)
    over.set()
    thread.join()
    told = [event["what"] for event in seen.of("waiting")]
    assert abs(told.count("bake-prefetch to end") - told.count("something else")) <= 1


def test_only_the_main_threads_outermost_waits_count_as_waited() -> None:
    waits = Waits()
    with waits.one("outer"):
        with waits.one("inner"):
            time.sleep(0.05)
        assert waits.of_main_thread() is not None
        assert str(waits.of_main_thread()).startswith("outer since ")
    before = waits.main_seconds
    assert 0.05 <= before < 10
    thread = threading.Thread(target=lambda: waits.one("beside").__enter__())
    thread.start()
    thread.join()
    assert waits.main_seconds == before
    assert waits.of_main_thread() is None


def test_a_wait_that_is_interrupted_is_over() -> None:
    progress, _ = watched()
    with pytest.raises(KeyboardInterrupt), progress.tally.waiting("what never comes"):
        raise KeyboardInterrupt
    assert progress.tally.waits.of_main_thread() is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (59.4, "59 s"), (61, "1 min"), (600, "10 min"), (14400, "4 h")]
)
def test_lengths_are_readable(seconds: float, text: str) -> None:
    assert span(seconds) == text


def event(at: float, what: str = "AMI ami-1", kind: str = "waiting", text: str = "") -> dict[str, Any]:
    text = text or f"waiting for {what} since 12:00:00 ({span(at)})"
    return {"event": kind, "at": at, "what": what, "since": "2027-01-01T12:00:00Z", "text": text}


def test_a_plain_log_gets_a_line_a_minute_for_each_wait() -> None:
    stream = io.StringIO()
    screen = PlainScreen(stream)
    for at in range(10, 3600, 10):
        screen.show(event(at))
        screen.show(event(at, "bake-prefetch to end"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 * 60
    assert lines[0] == "    waiting for AMI ami-1 since 12:00:00 (10 s)"


def test_a_plain_log_gets_a_status_with_new_numbers_once_a_minute() -> None:
    stream = io.StringIO()
    screen = PlainScreen(stream)
    for at in range(600):
        screen.show(event(at, kind="status", text=f"snap-1 {at // 6}%"))
    assert len(stream.getvalue().splitlines()) == 10
    for number in (1, 2, 3):
        screen.show(event(601, kind="status", text=f"removing vol-{number}"))
    assert len(stream.getvalue().splitlines()) == 13


def test_the_terminal_shows_a_wait_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    from bake.terminal import RichScreen

    screen = RichScreen()
    try:
        screen.show({**event(90), "seconds": 90.0})
        screen.show({**event(100), "seconds": 100.0})
        [task] = screen._waits.tasks
        assert task.elapsed is not None
        assert task.elapsed >= 90
        assert "since 12:00:00" in task.description
        screen.show({"event": "waited", "at": 101.0, "what": "AMI ami-1", "seconds": 101.0})
        assert screen._waits.tasks == []
    finally:
        screen.close()


def test_the_run_directory_gets_every_wait(tmp_path: Path) -> None:
    progress, _ = watched()
    progress.record_to(tmp_path / "events.jsonl")
    with progress.tally.waiting("AMI ami-1"):
        until(lambda: "waiting" in (tmp_path / "events.jsonl").read_text())
    kinds = [json.loads(line)["event"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert kinds[-1] == "waited"


def test_a_call_that_aws_throttles_tells_so(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws().patiently(seconds=60.0)
    told: list[Wait] = []
    aws.tally.waits.tell = told.append
    plan_cloud.faults.add(AwsFault(service="ec2", action="DescribeImages", kind="throttle", times=6))
    aws.ec2.describe_images(Owners=["self"])
    assert [wait.what for wait in told] == ["AWS to answer DescribeImages"]
    assert told[0].detail == "RequestLimitExceeded, tried 6 times"


def test_a_wait_for_a_state_tells_what_keeps_it(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws().patiently(seconds=0)
    told: list[str] = []
    aws.tally.waits.tell = lambda wait: told.append(str(wait))
    plan_cloud.faults.add(AwsFault(service="ec2", action="DescribeImages", kind="throttle", times=1))
    aws.wait("an AMI", lambda: aws.ec2.describe_images(Owners=["self"]), timeout=60)
    [line] = told
    assert line.startswith("an AMI since ")
    assert line.endswith("1 min at most): AWS: RequestLimitExceeded")
