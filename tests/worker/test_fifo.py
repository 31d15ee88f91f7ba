"""FIFO queues work like others; no job waits for another one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flux_worker.cli import main
from flux_worker.jobs.claims import Claims
from flux_worker.jobs.queue import JobQueue
from tests.worker.conftest import Served, until

pytestmark = pytest.mark.integration
COMMAND = str(Path(sys.executable).parent / "flux-worker")
SMALL = ["--width", "256", "--height", "256", "--steps", "2"]


def make_fifo(aws: Any) -> Any:
    """Give these places a FIFO queue of jobs, with a dead-letter queue that has to be one as well."""
    sqs = aws.client("sqs")
    name = aws.bucket.removesuffix("-images")
    dead = sqs.create_queue(QueueName=f"{name}-dead.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    attributes = {"FifoQueue": "true", "RedrivePolicy": redrive}
    aws.jobs = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=attributes)["QueueUrl"]
    return aws


@pytest.fixture(scope="module")
def aws(new_aws: Callable[[], Any]) -> Any:
    """The places of this module's one worker."""
    return make_fifo(new_aws())


@pytest.fixture
def send(new_aws: Callable[[], Any], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`flux-worker send --no-wait` in this process, to a queue of its own that nobody serves."""
    aws = make_fifo(new_aws())
    prerequisites = {"FLUX_QUEUE_URL": aws.jobs, "FLUX_BUCKET": aws.bucket}
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        prerequisites[name] = environment[name]
    for name, value in prerequisites.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["send", *arguments, "--no-wait"])
        assert not ended.value.code

    run.aws = aws  # type: ignore[attr-defined]
    return run


def test_the_same_job_is_sent_once_and_each_is_a_group_of_its_own(send: Any) -> None:
    longest = "a.b_c-" + "x" * 122
    for arguments in ([], [], ["--steps", "28"]):
        send("a cat", "--id", longest, *arguments)
    assert send.aws.left() == 1
    send("a cat", "--id", "other")
    send("a cat", "--id", "other", "--metadata", '{"asked": "again"}')
    assert send.aws.left() == 3
    sqs, groups = send.aws.client("sqs"), []
    while messages := sqs.receive_message(QueueUrl=send.aws.jobs, AttributeNames=["All"]).get("Messages"):
        groups += [message["Attributes"]["MessageGroupId"] for message in messages]
        sqs.delete_message(QueueUrl=send.aws.jobs, ReceiptHandle=messages[0]["ReceiptHandle"])
    assert groups == [longest, "other", "other"]


def test_a_job_that_failed_is_sent_again(send: Any) -> None:
    """SQS drops what is like a message of the last five minutes, and tells nobody."""
    send("a cat", "--id", "cat")
    failed: dict[str, Any] = {"id": "cat", "reason": "why", "failed_at": "2026-11-22T10:00:00+00:00"}
    for second in range(2):
        failed["failed_at"] = f"2026-11-22T10:00:0{second}+00:00"
        send.aws.client("s3").put_object(
            Bucket=send.aws.bucket, Key="images/cat=failed.json", Body=json.dumps(failed).encode()
        )
        send("a cat", "--id", "cat")
        assert send.aws.left() == 2 + second


def test_hiding_handing_back_and_deleting_work(send: Any) -> None:
    send("a cat", "--id", "cat")
    queue = JobQueue(send.aws.client("sqs"), send.aws.jobs, 300)
    first = queue.receive(5)
    assert first
    assert queue.extend_visibility(first)
    assert queue.receive(0) is None
    queue.return_message(first)
    again = queue.receive(5)
    assert again
    assert again.body == first.body
    assert again.receives > first.receives
    queue.delete(again)
    assert send.aws.left() == 0
    assert queue.max_receives() == 3


def test_from_send_to_record_while_other_jobs_wait(
    worker: Served, aws: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    """One can't be drawn, and one is another worker's for the next minutes."""
    Claims(aws.client("s3"), aws.bucket, "images/", 3_000).take("stuck", "another-worker")
    for name, text in (
        ("bad", '{"id": "bad", "prompt": ""}'),
        ("stuck", '{"id": "stuck", "prompt": "a dog"}'),
    ):
        aws.client("sqs").send_message(
            QueueUrl=aws.jobs, MessageBody=text, MessageGroupId=name, MessageDeduplicationId=name
        )
    done = subprocess.run(
        [COMMAND, "send", "a cat", *SMALL, "--id", "cat", "--metadata", '{"order": 7}', "--json"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["job"]["metadata"], record["keys"]) == ({"order": 7}, ["images/cat.png"])
    assert Image.open(tmp_path / "cat.png").size == (256, 256)
    assert [aws.event()["detail"]["id"] for _ in range(2)] == ["bad", "cat"]
    until(lambda: aws.left() == 1, 10, "all but the job that is another worker's to be deleted")
    assert any(line.get("job") == "stuck" and "not drawn here" in line["message"] for line in worker.lines())


def test_the_end_of_the_terminal_ends_a_worker_as_sigterm_does(worker: Served) -> None:
    worker.process.send_signal(signal.SIGHUP)
    assert worker.process.wait(120) == 0
    until(lambda: "STOPPING=1" in worker.told, 10, "systemd to hear of it")
    assert any(line["message"] == "stopped: SIGHUP" for line in worker.lines())
