"""The bench's stand-in for AWS and moto answer alike, in all operations that the worker uses.

Where moto is laxer than AWS, the stand-in follows AWS and there is no case here: moto changes the visibility
of a message that is visible again, and refuses events for a bus that does not exist.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.bench.stand_in.process import stand_in_server, usage
from tests.worker.conftest import Aws, until

ATTRIBUTES = ["ApproximateReceiveCount", "SentTimestamp"]


@pytest.fixture(scope="module")
def stand_in() -> Iterator[str]:
    with stand_in_server() as url:
        yield url


_numbers = itertools.count(1)


@pytest.fixture(params=["stand-in", "moto"])
def either(request: pytest.FixtureRequest, stand_in: str, endpoint: str) -> Aws:
    """A queue, a bucket and a bus on one of the two."""
    return Aws(stand_in if request.param == "stand-in" else endpoint, f"contract-{next(_numbers)}")


def code(act: Callable[[], Any]) -> str | int:
    """The error's code, or the status."""
    try:
        return act()["ResponseMetadata"]["HTTPStatusCode"]  # type: ignore[no-any-return]
    except ClientError as error:
        return error.response["Error"]["Code"]


class Bucket:
    """Calls on one object, as the worker makes them."""

    def __init__(self, aws: Aws, key: str = "images/a b=1.png") -> None:
        self.s3 = aws.client("s3")
        self.place = {"Bucket": aws.bucket, "Key": key}

    def put(self, body: bytes = b"x", **condition: str) -> str | int:
        return code(lambda: self.s3.put_object(**self.place, Body=body, ContentType="image/png", **condition))

    def delete(self, **condition: str) -> str | int:
        return code(lambda: self.s3.delete_object(**self.place, **condition))

    def get(self) -> Any:
        return self.s3.get_object(**self.place)

    def etag(self) -> str:
        return self.get()["ETag"]  # type: ignore[no-any-return]


def test_an_object_comes_back_as_it_was_put(either: Aws) -> None:
    bucket = Bucket(either)
    data = bytes(range(256)) * 1000
    assert bucket.put(data) == 200
    found = bucket.get()
    assert (found["Body"].read(), found["ContentType"]) == (data, "image/png")
    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    assert timedelta() <= now - found["LastModified"] <= timedelta(seconds=60)
    head = bucket.s3.head_object(**bucket.place)
    same = ("ETag", "LastModified", "ContentType", "ContentLength")
    assert [head[name] for name in same] == [found[name] for name in same]


def test_an_etag_follows_the_content(either: Aws) -> None:
    bucket = Bucket(either)
    answers = [bucket.s3.put_object(**bucket.place, Body=body)["ETag"] for body in (b"1", b"2", b"1")]
    assert answers[0] == answers[2] != answers[1]
    assert bucket.etag() == answers[0]


def test_a_write_on_a_condition(either: Aws) -> None:
    bucket = Bucket(either)
    assert bucket.put(b"1", IfMatch='"0"') == "NoSuchKey"
    assert bucket.put(b"1", IfNoneMatch="*") == 200
    assert bucket.put(b"2", IfNoneMatch="*") == "PreconditionFailed"
    old = bucket.etag()
    assert bucket.put(b"2", IfMatch=old) == 200
    assert bucket.put(b"3", IfMatch=old) == "PreconditionFailed"
    assert bucket.get()["Body"].read() == b"2"


def test_a_delete_on_a_condition(either: Aws) -> None:
    bucket = Bucket(either)
    assert bucket.delete() == 204
    assert bucket.delete(IfMatch='"0"') == "NoSuchKey"
    bucket.put()
    assert bucket.delete(IfMatch='"0"') == "PreconditionFailed"
    assert bucket.delete(IfMatch=bucket.etag()) == 204
    assert code(bucket.get) == "NoSuchKey"


def test_what_is_missing_has_its_code(either: Aws) -> None:
    bucket = Bucket(either)
    assert code(bucket.get) == "NoSuchKey"
    assert code(lambda: bucket.s3.head_object(**bucket.place)) == "404"
    bucket.place["Bucket"] += "-other"
    assert code(bucket.get) == bucket.put() == "NoSuchBucket"


def test_a_listing_has_all_pages_in_order(either: Aws) -> None:
    keys = [f"images/{name}" for name in ("a", "b c", "d=claim", "z", "кот")]
    for key in [*reversed(keys), "other/a"]:
        Bucket(either, key).put(key.encode())
    s3 = either.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=either.bucket, Prefix="images/", PaginationConfig={"PageSize": 2}
    )
    entries = [[(e["Key"], e["Size"], e["ETag"]) for e in page["Contents"]] for page in pages]
    assert [len(page) for page in entries] == [2, 2, 1]
    wanted = [(key, len(key.encode()), Bucket(either, key).etag()) for key in keys]
    assert [entry for page in entries for entry in page] == wanted
    nothing = s3.list_objects_v2(Bucket=either.bucket, Prefix="none/")
    assert (nothing["KeyCount"], nothing.get("Contents")) == (0, None)


class Queue:
    """Calls on the queue of jobs, as the worker makes them."""

    def __init__(self, aws: Aws) -> None:
        self.sqs = aws.client("sqs")
        self.url = aws.jobs

    def receive(self, visibility: int = 300, wait: int = 0) -> dict[str, Any] | None:
        answer = self.sqs.receive_message(
            QueueUrl=self.url,
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
            MessageSystemAttributeNames=ATTRIBUTES,
        )
        return next(iter(answer.get("Messages", [])), None)

    def hide(self, receipt: str, seconds: int) -> str | int:
        return code(
            lambda: self.sqs.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=seconds
            )
        )

    def delete(self, receipt: str) -> str | int:
        return code(lambda: self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=receipt))

    def attributes(self, *names: str) -> dict[str, str]:
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(names))
        return answer.get("Attributes", {})  # type: ignore[no-any-return]


def test_a_message_is_received_by_one(either: Aws) -> None:
    queue = Queue(either)
    before = datetime.now(UTC).timestamp()
    either.send("кот")
    message = queue.receive()
    assert message and message["Body"] == "кот"
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert abs(int(message["Attributes"]["SentTimestamp"]) / 1000 - before) < 60
    assert queue.receive() is None
    assert either.left() == 1
    assert queue.delete(message["ReceiptHandle"]) == 200
    assert either.left() == 0


def test_the_answer_has_a_date(either: Aws) -> None:
    """The worker subtracts SentTimestamp from it."""
    answer = either.client("sqs").receive_message(QueueUrl=either.jobs)
    date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    assert abs(date - datetime.now(UTC)) < timedelta(seconds=60)


def test_a_message_that_is_returned_is_received_again(either: Aws) -> None:
    queue = Queue(either)
    either.send("job")
    first = queue.receive()
    assert first and queue.hide(first["ReceiptHandle"], 300) == 200
    assert queue.receive() is None
    assert queue.hide(first["ReceiptHandle"], 0) == 200
    second = queue.receive(wait=5)
    assert second and second["Attributes"]["ApproximateReceiveCount"] == "2"


def test_a_message_comes_back_by_itself(either: Aws) -> None:
    queue = Queue(either)
    either.send("job")
    assert queue.receive(visibility=1)
    until(lambda: queue.receive() is not None, 10, "the message to be visible again")


def test_a_long_poll_ends_with_a_message(either: Aws) -> None:
    queue, received = Queue(either), []
    polling = threading.Thread(target=lambda: received.append(queue.receive(wait=20)))
    polling.start()
    either.send("job")
    polling.join()
    assert received and received[0]["Body"] == "job"


def test_a_long_poll_ends_without_one(either: Aws) -> None:
    assert Queue(either).receive(wait=1) is None


def test_an_unknown_receipt(either: Aws) -> None:
    queue = Queue(either)
    either.send("job")
    message = queue.receive()
    assert message
    receipt = message["ReceiptHandle"]
    assert [queue.delete(receipt), queue.delete(receipt)] == [200, 200]
    assert queue.hide(receipt, 5) == "ReceiptHandleIsInvalid"
    assert [queue.delete("made up"), queue.hide("made up", 5)] == ["ReceiptHandleIsInvalid"] * 2


def test_an_unknown_queue(either: Aws) -> None:
    queue = Queue(either)
    queue.url += "-other"
    assert code(lambda: queue.sqs.receive_message(QueueUrl=queue.url)) == (
        "AWS.SimpleQueueService.NonExistentQueue"
    )


def test_many_messages_in_one_call(either: Aws) -> None:
    queue = Queue(either)
    entries = [{"Id": str(number), "MessageBody": f"job {number}"} for number in range(10)]
    sent = queue.sqs.send_message_batch(QueueUrl=queue.url, Entries=entries)
    assert [one["Id"] for one in sent["Successful"]] == [str(number) for number in range(10)]
    found = queue.sqs.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10)["Messages"]
    assert sorted(message["Body"] for message in found) == [f"job {number}" for number in range(10)]
    receipts = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in found]
    queue.sqs.delete_message_batch(QueueUrl=queue.url, Entries=receipts)
    assert either.left() == 0


def test_a_message_received_too_often_is_a_dead_letter(either: Aws) -> None:
    queue = Queue(either)
    dead = queue.sqs.create_queue(QueueName=f"{either.bucket}-dead")["QueueUrl"]
    arn = queue.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = {"deadLetterTargetArn": arn, "maxReceiveCount": 2}
    queue.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes={"RedrivePolicy": json.dumps(policy)})
    assert json.loads(queue.attributes("RedrivePolicy")["RedrivePolicy"]) == policy
    either.send("job")
    for _ in range(2):
        message = queue.receive()
        assert message
        queue.hide(message["ReceiptHandle"], 0)
    assert queue.receive() is None
    queue.url = dead
    message = queue.receive()
    assert message and message["Body"] == "job"


def test_an_event_comes_to_the_queue(either: Aws) -> None:
    events = either.client("events")
    entry = {"Source": "flux.worker", "DetailType": "Ready", "Detail": '{"id": "кот"}'}
    answer = events.put_events(Entries=[entry | {"EventBusName": either.bus}])
    assert answer["FailedEntryCount"] == 0
    event = either.any_event()
    assert [event[name] for name in ("source", "detail-type", "detail")] == [
        "flux.worker",
        "Ready",
        {"id": "кот"},
    ]
    assert event["id"] == answer["Entries"][0]["EventId"]


def test_a_bus_is_there_or_not(either: Aws) -> None:
    events = either.client("events")
    assert events.describe_event_bus(Name=either.bus)["Name"] == either.bus
    assert code(lambda: events.describe_event_bus(Name="none")) == "ResourceNotFoundException"


def test_a_call_costs_the_stand_in_less_than_its_caller(stand_in: str) -> None:
    """So that a bench measures the worker, and not what stands for AWS."""
    aws = Aws(stand_in, "cost")
    bucket = Bucket(aws)
    before, began = usage(stand_in), time.process_time()
    for _ in range(100):
        bucket.put(b"x" * 100_000)
        bucket.get()["Body"].read()
        aws.send("job")
    spent = usage(stand_in).since(before)
    assert spent.calls["s3 PutObject"] == spent.calls["s3 GetObject"] == spent.calls["sqs SendMessage"] == 100
    assert 0 < spent.cpu_seconds < time.process_time() - began


def test_nobody_receives_for_a_client_that_is_gone(stand_in: str) -> None:
    """A killed worker leaves a long poll behind; a message that goes there is hidden for nobody."""
    aws = Aws(stand_in, "gone")
    before = usage(stand_in)
    host, port = stand_in.removeprefix("http://").split(":")
    body = json.dumps({"QueueUrl": aws.jobs, "WaitTimeSeconds": 20}).encode()
    head = (
        "POST / HTTP/1.1\r\nX-Amz-Target: AmazonSQS.ReceiveMessage\r\n"
        f"Authorization: AWS4-HMAC-SHA256 Credential=a/20261130/eu-west-1/sqs/aws4_request\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as gone:
        gone.sendall(head.encode() + body)
        until(
            lambda: bool(usage(stand_in).since(before).calls["sqs ReceiveMessage"]), 10, "the poll to begin"
        )
    until(lambda: usage(stand_in).connections == before.connections, 10, "the end to be seen")
    aws.send("job")
    assert Queue(aws).receive(wait=5)
