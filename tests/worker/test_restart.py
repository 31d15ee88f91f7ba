"""Real workers that are stopped and killed: what they had in hand is finished by the next one, and once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import serving, until

JOB = {"prompt": "a cat", "width": 512, "height": 512, "seed": 1}


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def lines(worker: Any, message: str) -> int:
    return sum(line["message"].startswith(message) for line in worker.lines())


def wait_for(worker: Any, message: str) -> None:
    deadline = time.monotonic() + 600
    while not lines(worker, message):
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.1)


def test_what_is_drawn_survives_a_kill_while_s3_is_out(
    aws: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    # A lease that lasts longer than the drawing: without S3, the claim can't be renewed.
    patient = environment | {"FLUX_VISIBILITY_SECONDS": "120"}
    with serving(patient, new(tmp_path / "first")) as worker:
        aws.send(JOB | {"id": "kept", "steps": 50})  # enough for the outage to come before the end
        worker.wait_told("STATUS=Drawing kept")
        aws.remove_bucket()
        wait_for(worker, "storing the images failed")
        worker.process.kill()
    aws.make_bucket()
    with serving(environment, new(tmp_path / "second")) as worker:
        assert aws.event()["detail"]["id"] == "kept"
        wait_for(worker, "delivered from the outbox")
        aws.wait_until_empty()
        assert lines(worker, "drawing") == 0
        stored = aws.client("s3").list_objects_v2(Bucket=aws.bucket)["Contents"]
        assert [item["Key"] for item in stored] == ["images/kept.json", "images/kept.png"]


@pytest.mark.parametrize("moment", ["Loading the model", "Drawing a warm-up", "Waiting for jobs"])
def test_sigterm_ends_an_idle_worker_cleanly(
    aws: Any, environment: dict[str, str], tmp_path: Path, moment: str
) -> None:
    with serving(environment, tmp_path, f"STATUS={moment}") as worker:
        assert worker.stop() == 0
        assert lines(worker, "stopped: SIGTERM") == 1
        assert not any("traceback" in line for line in worker.lines())
        until(lambda: "STOPPING=1" in worker.told, 5, "systemd to hear of it")
        if moment == "Loading the model":
            assert "READY=1" not in worker.told


def test_sigterm_hands_back_what_does_not_fit(aws: Any, environment: dict[str, str], tmp_path: Path) -> None:
    hasty = environment | {"FLUX_DRAIN_SECONDS": "2", "FLUX_VISIBILITY_SECONDS": "600"}
    with serving(hasty, tmp_path) as worker:
        aws.send(JOB | {"id": "long", "steps": 50, "images": 4, "width": 1024, "height": 1024})
        worker.wait_told("STATUS=Drawing long")
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 60, "the drawing takes minutes"
        assert lines(worker, "handed back: ") == 1
    received = aws.client("sqs").receive_message(QueueUrl=aws.jobs, WaitTimeSeconds=20)["Messages"]
    assert '"long"' in received[0]["Body"], "it can be had at once"
    stored = aws.client("s3").list_objects_v2(Bucket=aws.bucket, Prefix="images/long")
    assert "Contents" not in stored, "the claim is gone, too"
