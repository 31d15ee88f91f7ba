"""AWS's errors are described in one line, and counted once per call, after botocore's own retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flux_worker import redaction
from flux_worker.aws.clients import Clients
from flux_worker.aws.errors import describe, failed_call
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.jobs.claims import Claims
from flux_worker.jobs.lease import MessageLease
from flux_worker.jobs.queue import AWS_ERRORS, JobQueue
from flux_worker.settings import QueueSettings
from tests.worker.conftest import CREDENTIALS, REGION, Aws, until
from tests.worker.refusing_proxy import RefusingProxy


@pytest.fixture(scope="module")
def proxy(aws: Aws) -> Iterator[RefusingProxy]:
    with RefusingProxy(aws.endpoint).running() as running:
        yield running


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(Notifier({}))


@pytest.fixture
def clients(aws: Aws, proxy: RefusingProxy, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> Clients:
    proxy.refused.clear()
    proxy.calls.clear()
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": proxy.url}).items():
        monkeypatch.setenv(name, value)
    places = {"AWS_REGION": REGION, "FLUX_QUEUE_URL": aws.jobs, "FLUX_BUCKET": aws.bucket}
    return Clients.from_settings(QueueSettings.from_environment(places), monitor)


def failures(monitor: Monitor) -> dict[str, float]:
    found = {
        service: monitor.registry.get_sample_value("flux_aws_failures_total", {"service": service}) or 0
        for service in ("sqs", "s3", "events")
    }
    return {service: count for service, count in found.items() if count}


def failing(call: Callable[[], Any]) -> Exception:
    with pytest.raises(AWS_ERRORS) as caught:
        call()
    return caught.value


def put(clients: Clients, aws: Aws, key: str, **condition: Any) -> Any:
    return clients.s3.put_object(Bucket=aws.bucket, Key=key, Body=b"x", **condition)


def event(clients: Clients, bus: str, detail_type: str = "Some") -> Any:
    entry = {"Source": "a", "DetailType": detail_type, "Detail": "{}", "EventBusName": bus}
    return clients.events.put_events(Entries=[entry])  # type: ignore[list-item]


def test_answers_are_no_failures(clients: Clients, aws: Aws, monitor: Monitor, proxy: RefusingProxy) -> None:
    put(clients, aws, "there")
    failing(lambda: put(clients, aws, "there", IfNoneMatch="*"))
    failing(lambda: clients.s3.get_object(Bucket=aws.bucket, Key="absent"))
    failing(lambda: clients.s3.head_object(Bucket=aws.bucket, Key="absent"))
    assert Claims(clients.claiming, aws.bucket, "images/", 300).take("one", "token")
    queue = JobQueue(clients.sqs, aws.jobs, 30)
    proxy.refuse("sqs:GetQueueAttributes")
    assert queue.max_receives() is None, "a role need not have this right"
    assert failures(monitor) == {}


def test_every_failed_call_is_counted_once_by_service(
    clients: Clients, aws: Aws, monitor: Monitor, proxy: RefusingProxy
) -> None:
    proxy.refuse("s3:PutObject", "SlowDown", status=503)
    failing(lambda: put(clients, aws, "a"))
    assert proxy.calls["s3:PutObject"] == 3, "botocore tried again by itself"
    proxy.refuse("sqs:DeleteMessage")
    failing(lambda: clients.sqs.delete_message(QueueUrl=aws.jobs, ReceiptHandle="x"))
    proxy.refuse("events:PutEvents", None)
    failing(lambda: event(clients, aws.bus))
    proxy.refused.clear()
    assert event(clients, aws.bus, "")["FailedEntryCount"] == 1, "answered with 200, and not taken"
    assert failures(monitor) == {"s3": 1, "sqs": 1, "events": 2}


def test_renewals_are_counted_too(clients: Clients, aws: Aws, monitor: Monitor, proxy: RefusingProxy) -> None:
    queue = JobQueue(clients.sqs, aws.jobs, 3)
    aws.send("a message")
    message = queue.receive(5)
    assert message
    proxy.refuse("sqs:ChangeMessageVisibility")
    with MessageLease(queue, message):
        until(lambda: failures(monitor) == {"sqs": 1}, 10, "a renewal that fails")


def test_credentials_that_are_not_there_are_counted_and_told(
    clients: Clients, aws: Aws, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    error = failing(lambda: clients.polling.receive_message(QueueUrl=aws.jobs))
    assert describe(error).startswith(f"no credentials for sqs:ReceiveMessage on the queue {aws.jobs}: ")
    assert failures(monitor) == {"sqs": 1}


WORDS = [
    ("s3:GetObject", "AccessDenied", 403, "S3 refuses s3:GetObject on s3://{}/k (AccessDenied): User: "),
    ("s3:GetObject", "NoSuchBucket", 404, "the bucket {} does not exist, says S3 to s3:GetObject (NoSuchB"),
    ("s3:GetObject", "InvalidAccessKeyId", 403, "S3 does not accept these credentials for s3:GetObject on "),
    ("s3:GetObject", "ExpiredToken", 400, "the credentials have expired, says S3 to s3:GetObject on s3:"),
    ("s3:GetObject", "SlowDown", 503, "S3 answers s3:GetObject on s3://{}/k with an error (SlowDown): "),
    ("s3:GetObject", None, 0, "http://127.0.0.1:"),
]


@pytest.mark.parametrize(("action", "code", "status", "words"), WORDS)
def test_an_error_is_one_line_that_names_call_place_and_code(
    clients: Clients, aws: Aws, proxy: RefusingProxy, action: str, code: str | None, status: int, words: str
) -> None:
    proxy.refuse(action, code, status=status)
    error = failing(lambda: clients.s3.get_object(Bucket=aws.bucket, Key="k"))
    assert describe(error).startswith(words.format(aws.bucket))
    assert (failed_call(error).service, failed_call(error).action) == ("s3", action)
    assert len(describe(error).splitlines()) == 1


def test_secrets_are_not_told(
    clients: Clients, aws: Aws, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_secrets", set())
    redaction.add_secret("hidden-bucket-part")
    proxy.refuse("s3:GetObject", message="no hidden-bucket-part\nfor you")
    error = failing(lambda: clients.s3.get_object(Bucket=aws.bucket, Key="k"))
    assert describe(error).endswith("(AccessDenied): no *** for you")
