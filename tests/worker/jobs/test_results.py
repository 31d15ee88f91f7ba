"""Records, failures and events, and the meaning of AWS's answers."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber

from flux_worker.errors import CallRefused, CorruptRecord, InvalidJob
from flux_worker.jobs.outbox import PendingResult
from flux_worker.jobs.queue import JobQueue, Message
from flux_worker.jobs.record import Record
from flux_worker.jobs.results import Results
from flux_worker.jobspec.job import Job
from tests.worker.worker_harness import FakeModel


def pending(**fields: Any) -> PendingResult:
    from flux_worker.encode import encode

    job = Job(**{"id": "cat", "prompt": "a cat", "width": 256, "height": 256, "steps": 1} | fields).seeded()
    generated = FakeModel().generate(job, lambda _: None)
    files = encode(generated)
    record = Record.of(generated, files, bucket="", prefix="images/", queue_seconds=2.04)
    return PendingResult(record, tuple(file.data for file in files), "", "")


@pytest.fixture
def results(new_aws: Any) -> Results:
    aws = new_aws()
    return Results(aws.client("s3"), aws.client("events"), aws.bucket, "images/", aws.bus)


def stored(results: Results, **fields: Any) -> PendingResult:
    made = pending(**fields)
    record = made.record.model_copy(update={"bucket": results.bucket})
    return PendingResult(record, made.images, "", "")


def test_what_is_stored_is_found(results: Results) -> None:
    sent = stored(results, metadata={"a": [None, "ü"]}, format="webp")
    assert results.record("cat") is None
    assert results.store(sent.record, sent.images) == sent.record
    assert results.record("cat") == sent.record
    assert sent.record.seconds.queue == 2.0


def test_the_first_record_stays(results: Results) -> None:
    first, second = stored(results), stored(results, seed=9)
    results.store(first.record, first.images)
    assert results.store(second.record, second.images) == first.record
    assert results.record("cat") == first.record


@pytest.mark.parametrize(
    ("fields", "others"),
    [
        pytest.param({}, [], id="same"),
        pytest.param({"metadata": {"a": 1}}, [], id="metadata-is-no-parameter"),
        pytest.param({"seed": Job(id="cat", prompt="x").seeded().seed}, [], id="the-seed-it-had-anyway"),
        pytest.param({"seed": 1}, ["seed"], id="seed"),
        pytest.param({"prompt": "a dog", "steps": 2}, ["prompt", "steps"], id="two"),
        pytest.param({"format": "jpg"}, ["format", "quality"], id="format"),
        pytest.param({"s3_prefix": "a/"}, ["s3_prefix"], id="prefix"),
    ],
)
def test_another_job_is_told_by_its_fields(fields: dict[str, Any], others: list[str]) -> None:
    requested = Job(**{"id": "cat", "prompt": "a cat", "width": 256, "height": 256, "steps": 1} | fields)
    assert pending().record.differs(requested) == others


def test_an_event_never_carries_the_prompt_and_stays_small(results: Results) -> None:
    largest = stored(
        results,
        id="i" * 128,
        prompt="p" * 10_000,
        images=4,
        s3_prefix="x" * 255 + "/",
        metadata={"a": "\N{CAT}" * 1_000},
    )
    detail = json.dumps(largest.record.detail("images/cat.json", largest.record.job.metadata))
    assert "ppp" not in detail
    assert len(detail.encode()) < 20_000


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"job": {"id": "cat"}}'])
def test_what_is_no_record_is_told(results: Results, content: bytes) -> None:
    results.s3.put_object(Bucket=results.bucket, Key="images/cat.json", Body=content)
    with pytest.raises(CorruptRecord, match=r"images/cat\.json is not a record .* move it away"):
        results.record("cat")


def test_a_role_that_may_not_list_is_told_what_it_lacks() -> None:
    s3 = boto3.client("s3", region_name="eu-west-1")
    with Stubber(s3) as stub:
        stub.add_client_error("get_object", "AccessDenied", http_status_code=403)
        results = Results(s3, None, bucket="pictures", prefix="", event_bus="")  # type: ignore[arg-type]
        with pytest.raises(CallRefused, match=r"s3:GetObject on the objects and s3:ListBucket on the bucket"):
            results.record("cat")


def test_an_event_that_is_not_taken_is_an_error() -> None:
    """PutEvents answers 200 even then."""
    events = boto3.client("events", region_name="eu-west-1")
    with Stubber(events) as stub:
        refusal = {"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}
        stub.add_response("put_events", {"FailedEntryCount": 1, "Entries": [refusal]}, {"Entries": ANY})
        results = Results(None, events, bucket="b", prefix="", event_bus="flux")  # type: ignore[arg-type]
        with pytest.raises(ClientError, match=r"ThrottlingException.* slow down"):
            results.announce_failure(InvalidJob("why"), None)


def test_a_failure_says_why(results: Results) -> None:
    key = results.store_failure("cat", "why")
    assert key == "images/cat=failed.json"
    content = json.loads(results.s3.get_object(Bucket=results.bucket, Key=key)["Body"].read())
    assert content.items() > {"id": "cat", "reason": "why"}.items()
    assert not results.recorded("cat")
    results.forget_failure("cat")
    sent = stored(results)
    results.store(sent.record, sent.images)
    assert results.recorded("cat")


class TestQueue:
    """What SQS tells of a message, and receipts that are worth nothing any more."""

    @pytest.fixture
    def aws(self, new_aws: Any) -> Any:
        return new_aws()

    @pytest.fixture
    def queue(self, aws: Any) -> JobQueue:
        return JobQueue(aws.client("sqs"), aws.jobs, visibility_seconds=30)

    def test_a_message_tells_how_often_it_came_and_how_long_it_lay(self, aws: Any, queue: JobQueue) -> None:
        assert queue.receive(0) is None
        aws.send("a job")
        first = queue.receive(5)
        assert first == queue.received
        assert first
        assert (first.body, first.receives) == ("a job", 1)
        assert first.lag_seconds is not None
        assert 0 <= first.lag_seconds < 60
        queue.return_message(first)
        again = queue.receive(5)
        assert again
        assert again.receives == 2

    def test_a_receipt_that_expired_harms_nothing(self, queue: JobQueue) -> None:
        stale = Message("", "stale")
        queue.delete(stale)
        queue.return_message(stale)
        assert queue.extend_visibility(stale) is False

    def test_a_queue_that_may_not_be_asked_about_is_served_all_the_same(self) -> None:
        sqs = boto3.client("sqs", region_name="eu-west-1")
        with Stubber(sqs) as stub:
            stub.add_client_error("get_queue_attributes", "AccessDenied", http_status_code=403)
            assert JobQueue(sqs, "https://queue", 30).max_receives() is None
