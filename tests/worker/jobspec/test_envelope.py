"""Envelopes are opened; known mistakes are refused with advice."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from flux_worker.errors import InvalidJob
from flux_worker.jobs.results import Results
from flux_worker.jobspec.job import MAX_MESSAGE_BYTES, id_in, parse
from tests.worker.conftest import REGION

JOB: dict[str, Any] = {"id": "cat-1", "prompt": "a cat — 猫", "width": 512, "metadata": {"order": [7, 1.5]}}
TEXT = json.dumps(JOB)


def sns(message: str, **fields: Any) -> str:
    """A notification as SNS puts it on a queue without raw delivery."""
    arn = "arn:aws:sns:eu-west-1:123456789012:jobs"
    head = {"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "TopicArn": arn}
    tail = {"Timestamp": "2026-11-22T10:00:00.000Z", "SignatureVersion": "1", "Signature": "EXAMPLE"}
    return json.dumps(head | {"Message": message} | tail | fields)


def event(detail: Any, source: str = "shop.orders", kind: str = "PictureWanted") -> str:
    """An event as EventBridge puts it on a queue."""
    head = {
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": kind,
        "source": source,
    }
    place = {
        "account": "123456789012",
        "time": "2026-11-22T10:00:00Z",
        "region": "eu-west-1",
        "resources": [],
    }
    return json.dumps(head | place | {"detail": detail})


READY = {
    "id": "cat-1",
    "bucket": "b",
    "keys": ["images/cat-1.png"],
    "sidecar": "images/cat-1.json",
    "width": 512,
}
FAILED = {"id": None, "bucket": "b", "sidecar": None, "reason": "width: Input should be a multiple of 16"}
KOMBU = {
    "body": base64.b64encode(b'[["a cat"], {}, {"callbacks": null}]').decode(),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"lang": "py", "task": "draw", "id": "cat-1"},
    "properties": {"correlation_id": "1", "body_encoding": "base64", "delivery_tag": "2"},
}
S3_EVENT = {
    "Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "s3": {"object": {"key": "cat.png"}}}]
}
S3_TEST = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b", "RequestId": "5582815E1AEA5ADF"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(sns(TEXT), id="sns"),
        pytest.param(sns(TEXT, Subject="a job"), id="sns-with-a-subject"),
        pytest.param(event(JOB), id="eventbridge"),
        pytest.param(sns(event(JOB)), id="eventbridge-through-sns"),
        pytest.param(event(JOB, source="flux.worker", kind="JobWanted"), id="a-job-of-the-same-source"),
        pytest.param(sns(event(JOB | {"width": 512.0})), id="whole-float"),
        pytest.param(sns(sns(sns(TEXT))), id="three-deep"),
        pytest.param(f"\n {sns(TEXT)} ", id="blanks-around"),
    ],
)
def test_a_job_is_taken_out_of_its_envelope(body: str) -> None:
    assert parse(body) == parse(TEXT)
    assert id_in(body) == "cat-1"


@pytest.mark.parametrize("wrap", [sns, lambda text: event(json.loads(text))], ids=["sns", "eventbridge"])
def test_what_is_wrong_with_the_job_inside_is_said_with_its_id(wrap: Callable[[str], str]) -> None:
    body = wrap(json.dumps(JOB | {"width": 1000, "colour": "red"}))
    with pytest.raises(InvalidJob, match=r"^width: .*multiple of 16; colour: Extra inputs") as caught:
        parse(body)
    assert caught.value.job_id == id_in(body) == "cat-1"
    assert caught.value.announce
    assert id_in(wrap('{"id": "no-prompt"}')) == "no-prompt"
    with pytest.raises(InvalidJob, match=r"^prompt: Field required"):
        parse(wrap('{"id": "no-prompt"}'))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(S3_EVENT, "an S3 event notification, not a job", id="s3"),
        pytest.param(S3_TEST, "S3's test event, not a job", id="s3-test"),
        pytest.param(sns(json.dumps(S3_EVENT)), "an S3 event notification", id="s3-through-sns"),
        pytest.param(event({}, "aws.s3", "Object Created"), "an S3 event of EventBridge", id="s3-event"),
        pytest.param({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "aws:sns records", id="lambda"),
        pytest.param(KOMBU, "Celery or kombu, not a job", id="kombu"),
        pytest.param(base64.b64encode(json.dumps(KOMBU).encode()).decode(), "Celery", id="kombu-in-base64"),
        pytest.param(
            ["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "b", "s3Key": "k"}],
            "SQS extended client, not a job: send the job itself",
            id="extended-client",
        ),
        pytest.param(
            ["com.amazon.sqs.javamessaging.MessageS3Pointer", {"s3BucketName": "b", "s3Key": "k"}],
            "SQS extended client",
            id="older-extended-client",
        ),
        pytest.param(
            sns("", Type="SubscriptionConfirmation", Token="x"), "confirm-subscription", id="confirm"
        ),
        pytest.param([JOB, JOB], "send each job as a message of its own", id="several-jobs"),
        pytest.param(json.dumps(TEXT), "encode the job once, not twice", id="encoded-twice"),
        pytest.param(sns(json.dumps(TEXT)), "encode the job once", id="encoded-twice-in-sns"),
        pytest.param(base64.b64encode(TEXT.encode()).decode(), "JSON in base64", id="base64"),
        pytest.param(
            base64.urlsafe_b64encode(TEXT.encode()).decode() + "\n", "in base64", id="urlsafe-base64"
        ),
        pytest.param(base64.b64encode(gzip.compress(TEXT.encode())).decode(), "gzip in base64", id="gzip"),
        pytest.param("\ufeff" + TEXT, "byte order mark", id="bom"),
        pytest.param("file://job.json", r"a file's name \(file://job.json\), not its content", id="file"),
        pytest.param("id=cat-1&prompt=a+cat", "form-encoded", id="form"),
        pytest.param("%7b%22id%22%3A%22cat-1%22%7D", "form-encoded", id="percent-encoded"),
        pytest.param("Action=SendMessage&MessageBody=%7B%7D", "form-encoded", id="query"),
        pytest.param(sns("build failed"), "the SNS notification holds no job", id="sns-of-others"),
        pytest.param(
            event({"state": "x"}, "aws.ec2"), "the EventBridge event holds no job", id="event-of-others"
        ),
        pytest.param(sns(sns(sns(sns(TEXT)))), "more than 3 nested envelopes", id="four-deep"),
    ],
)
def test_what_is_no_job_is_refused_with_what_to_do(body: Any, reason: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(InvalidJob, match=reason) as caught:
        parse(text)
    assert caught.value.announce
    assert caught.value.job_id is None
    assert id_in(text) is None
    assert len(caught.value.reason) <= 300
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(event(READY, "flux.worker", "FluxImageReady"), id="ready"),
        pytest.param(event(FAILED, "flux.worker", "FluxImageFailed"), id="failed"),
        pytest.param(sns(event(FAILED, "flux.worker", "FluxImageFailed")), id="failed-through-sns"),
        pytest.param(
            event(READY | {"metadata": {"prompt": "a"}}, "flux.worker", "FluxImageReady"), id="metadata"
        ),
        pytest.param(json.dumps(READY), id="detail-of-ready"),
        pytest.param(json.dumps(FAILED), id="detail-of-failed"),
        pytest.param(
            sns(json.dumps(FAILED | {"id": "cat-1", "dead_lettered": True})), id="detail-through-sns"
        ),
    ],
)
def test_the_workers_own_events_are_never_announced(body: str) -> None:
    """An event about such an event would be the next message, and so on for ever; nor has a job failed."""
    with pytest.raises(InvalidJob, match="restrict the EventBridge rule") as caught:
        parse(body)
    assert not caught.value.announce
    assert caught.value.job_id is None
    assert id_in(body) is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"Type": "Notification", "Message": TEXT}, id="sns"),
        pytest.param({"source": "a", "detail-type": "b", "detail": JOB}, id="event"),
        pytest.param({"bucket": "b", "sidecar": "c", "keys": []}, id="own-event"),
        pytest.param({"Records": S3_EVENT["Records"]}, id="s3"),
    ],
)
def test_a_job_is_never_taken_for_an_envelope(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="Extra inputs are not permitted") as caught:
        parse(json.dumps({"id": "mine", "prompt": "a dog"} | fields))
    assert (caught.value.job_id, caught.value.announce) == ("mine", True)


@pytest.mark.parametrize(
    "piece",
    [
        "A",
        "{",
        "[",
        '{"Type":"Notification","Message":"',
        "QUJD",
        "=",
        '"',
        "id=&",
        "\\",
        "\x1c",
        "file://",
        "9",
    ],
)
def test_garbage_of_any_length_is_refused(piece: str) -> None:
    for length in (1, 100, MAX_MESSAGE_BYTES - 100, MAX_MESSAGE_BYTES * 4):
        with pytest.raises(InvalidJob):
            parse((piece * length)[:length])
        assert id_in((piece * length)[:length]) is None


def test_sns_and_eventbridge_deliver_what_is_opened(aws: Any) -> None:
    """As moto's SNS and EventBridge put it on the queue."""
    arn = f"arn:aws:sqs:{REGION}:123456789012:{aws.jobs.rpartition('/')[2]}"
    notifications, events = aws.client("sns"), aws.client("events")
    topic = notifications.create_topic(Name="jobs")["TopicArn"]
    notifications.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    notifications.publish(TopicArn=topic, Message=TEXT, Subject="a job")
    assert parse(received(aws)) == parse(TEXT)
    events.put_rule(Name="jobs", EventBusName=aws.bus, EventPattern='{"source": [{"prefix": ""}]}')
    events.put_targets(Rule="jobs", EventBusName=aws.bus, Targets=[{"Id": "1", "Arn": arn}])
    entry = {"Source": "shop", "DetailType": "PictureWanted", "Detail": TEXT, "EventBusName": aws.bus}
    assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0
    assert parse(received(aws)) == parse(TEXT)
    # The rule takes whatever comes over the bus: what the worker announces, too.
    Results(aws.client("s3"), events, aws.bucket, "images/", aws.bus).announce_failure(
        InvalidJob("why"), None
    )
    with pytest.raises(InvalidJob, match=re.escape("event of the workers themselves")) as caught:
        parse(received(aws))
    assert not caught.value.announce


def received(aws: Any) -> str:
    sqs = aws.client("sqs")
    (message,) = sqs.receive_message(QueueUrl=aws.jobs, WaitTimeSeconds=20)["Messages"]
    sqs.delete_message(QueueUrl=aws.jobs, ReceiptHandle=message["ReceiptHandle"])
    return str(message["Body"])
