"""Workers that are stopped or killed: the next one finishes their jobs, once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import Served, serving, until

BIG = {"prompt": "a cat", "width": 1024, "height": 1024, "seed": 1}
QUICK = BIG | {"steps": 5}  # some seconds, and few signs of life: systemd's socket holds ten


def said(worker: Served, *beginnings: str, about: str | None = None) -> int:
    """How many lines of the log begin like that, of one job's where it is named."""
    lines = [line for line in worker.lines() if about in (None, line.get("job"))]
    return sum(line["message"].startswith(beginnings) for line in lines)


@pytest.fixture(scope="module")
def timeouts(environment: dict[str, str]) -> dict[str, str]:
    """A lease that lasts longer than a case, for no claim is renewed without S3, or while the host pauses."""
    return environment | {"FLUX_VISIBILITY_SECONDS": "600"}


def killed_over(name: str, worker: Served, aws: Any) -> bool:
    """Kill the worker while it can't store this job; False where the outage came too late for that.

    It is killed when it receives nothing, since a second job is refused, too: a long poll outlives who asked,
    and would hide the next case's message.
    """
    aws.send(QUICK | {"id": name})
    worker.wait_told(f"STATUS=Drawing {name}")
    aws.remove_bucket()
    too_late = ("removing the claim failed", "done")
    until(lambda: said(worker, "set aside", *too_late, about=name) > 0, 60, "the outage")
    if in_time := said(worker, *too_late, about=name) == 0:
        aws.send({"id": "another", "prompt": "a cat", "width": 7})
        worker.wait_told("STATUS=Not receiving")
        worker.process.kill()
        worker.process.wait()
        aws.client("sqs").purge_queue(QueueUrl=aws.jobs)
    aws.make_bucket()
    return in_time


@pytest.fixture(scope="module")
def kept(aws: Any, timeouts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that was drawn while S3 was out, and whose worker was then killed."""
    with serving(timeouts, tmp_path_factory.mktemp("first")) as worker:
        for name in (f"kept-{number}" for number in range(10)):
            if killed_over(name, worker, aws):
                return name
            assert aws.event()["detail"]["id"] == name
    pytest.fail("the outage came too late each time")


@pytest.fixture(scope="module")
def heir(
    aws: Any, kept: str, timeouts: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The next worker on the same machine, which tells first of what is kept there."""
    with serving(timeouts, tmp_path_factory.mktemp("second")) as worker:
        assert aws.event()["detail"]["id"] == kept
        yield worker


def test_what_is_drawn_survives_a_kill_while_s3_is_out(aws: Any, kept: str, heir: Served) -> None:
    until(lambda: said(heir, "delivered from the outbox") == 1, 60, "the delivery")
    aws.wait_until_empty()
    assert said(heir, "drawing") == 0
    stored = aws.client("s3").list_objects_v2(Bucket=aws.bucket)["Contents"]
    assert [item["Key"] for item in stored] == [f"images/{kept}.json", f"images/{kept}.png"]


def test_sigterm_finishes_the_job_in_hand(aws: Any, heir: Served) -> None:
    since = len(heir.told)
    aws.send(QUICK | {"id": "last"})
    heir.wait_told("STATUS=Drawing last", since=since)
    assert heir.stop() == 0
    until(lambda: "STOPPING=1" in heir.told[since:], 10, "systemd to hear of it")
    assert said(heir, "done", about="last") == 1
    assert aws.event()["detail"]["id"] == "last"
    assert aws.left() == 0


def test_starts_in_vain_wait_longer_and_systemd_waits_with_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    count = tmp_path / "state" / "starts-in-vain"
    count.parent.mkdir()
    count.write_text("9\n")
    with serving(environment | {"FLUX_STATE_DIR": str(count.parent)}, tmp_path, "STATUS=Waiting") as worker:
        worker.wait_told(r"STATUS=Waiting \d+ s: 9 starts in a row failed")
        worker.wait_told(r"EXTEND_TIMEOUT_USEC=10[12]\d{7}$")  # 15 minutes, and two more
        assert worker.stop() == 0
    assert not count.exists(), "who stops a service by hand wants it to start at once"


def test_a_start_counts_as_one_in_vain_until_a_job_is_drawn(
    new_aws: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    aws = new_aws()
    count = tmp_path / "state" / "starts-in-vain"
    changes = {"FLUX_STATE_DIR": str(count.parent), "FLUX_QUEUE_URL": aws.jobs, "FLUX_BUCKET": aws.bucket}
    environment = environment | changes | {"FLUX_EVENT_BUS": aws.bus}
    with serving(environment, tmp_path, "STATUS=Loading") as worker:
        until(count.exists, 10, "the start to be counted")
        assert count.read_text() == "1\n"
        aws.send({"id": "counted", "prompt": "a cat", "width": 256, "height": 256, "steps": 1})
        assert aws.event()["detail"]["id"] == "counted"
        until(lambda: not count.exists(), 10, "the count to be dropped")
        aws.wait_until_empty()
        assert worker.stop() == 0


@pytest.mark.parametrize("moment", ["Loading the model", "Drawing a warm-up"])
def test_sigterm_ends_a_worker_that_is_not_ready_cleanly(
    environment: dict[str, str], tmp_path: Path, moment: str
) -> None:
    with serving(environment, tmp_path, f"STATUS={moment}") as worker:
        assert worker.stop() == 0
        assert said(worker, "stopped: SIGTERM") == 1
        assert not any("traceback" in line for line in worker.lines())
        until(lambda: "STOPPING=1" in worker.told, 5, "systemd to hear of it")
        if moment == "Loading the model":
            assert "READY=1" not in worker.told


def test_sigterm_hands_back_what_does_not_fit(aws: Any, timeouts: dict[str, str], tmp_path: Path) -> None:
    with serving(timeouts | {"FLUX_DRAIN_SECONDS": "2"}, tmp_path) as worker:
        aws.send(BIG | {"id": "long", "steps": 50, "images": 4})
        worker.wait_told("STATUS=Drawing long")
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 60, "the drawing takes minutes"
        assert said(worker, "returned to the queue: ") == 1
    found: list[str] = []

    def received() -> bool:
        """A killed worker's long poll may still be served, and hide the message for a while."""
        answer = aws.client("sqs").receive_message(QueueUrl=aws.jobs, WaitTimeSeconds=1)
        found.extend(message["Body"] for message in answer.get("Messages", []))
        return bool(found)

    until(received, 30, "the job, which can be had at once")
    assert '"long"' in found[0]
    stored = aws.client("s3").list_objects_v2(Bucket=aws.bucket, Prefix="images/long")
    assert "Contents" not in stored, "the claim is gone, too"
