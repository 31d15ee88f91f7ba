"""The worker checks the event bus and the redrive policy every hour."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from flux_worker.aws.clients import Clients
from flux_worker.host.monitor import Monitor
from flux_worker.host.notify import Notifier
from flux_worker.jobs.prerequisites import Prerequisites
from flux_worker.jobs.queue import JobQueue
from flux_worker.settings import QueueSettings
from tests.worker.conftest import CREDENTIALS, REGION, Aws, until
from tests.worker.refusing_proxy import RefusingProxy


@pytest.fixture
def aws(new_aws: Callable[[], Aws]) -> Aws:
    return new_aws()


@pytest.fixture
def proxy(aws: Aws) -> Iterator[RefusingProxy]:
    with RefusingProxy(aws.endpoint).running() as running:
        yield running


@pytest.fixture
def prerequisites(aws: Aws, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch) -> Prerequisites:
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": proxy.url}).items():
        monkeypatch.setenv(name, value)
    given = {"AWS_REGION": REGION, "FLUX_QUEUE_URL": aws.jobs, "FLUX_BUCKET": aws.bucket}
    clients = Clients.from_settings(QueueSettings.from_environment(given))
    return Prerequisites(JobQueue(clients.sqs, aws.jobs, 30), clients.events, aws.bus, Monitor(Notifier({})))


def after_an_hour(prerequisites: Prerequisites) -> float:
    prerequisites._next_bus_check = prerequisites._next_queue_check = float("-inf")
    return prerequisites.check()


def test_it_is_looked_at_once_an_hour(prerequisites: Prerequisites, proxy: RefusingProxy, aws: Aws) -> None:
    assert [prerequisites.check() for _ in range(3)] == [0, 0, 0]
    assert proxy.calls["events:DescribeEventBus"] == 1
    aws.remove_bus()
    assert prerequisites.check() == 0
    assert after_an_hour(prerequisites) > 0
    assert "blocked" in prerequisites.monitor.status()


def test_an_absent_bus_is_looked_for_with_growing_pauses(prerequisites: Prerequisites, aws: Aws) -> None:
    aws.remove_bus()
    pauses = [prerequisites.check() for _ in range(6)]
    assert pauses[-1] > 2 * pauses[0] > 0
    aws.make_bus()
    assert prerequisites.check() == 0
    assert "blocked" not in prerequisites.monitor.status()


def test_who_may_not_look_receives_all_the_same(
    prerequisites: Prerequisites, proxy: RefusingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    proxy.refuse("events:DescribeEventBus")
    assert [after_an_hour(prerequisites), after_an_hour(prerequisites)] == [0, 0]
    assert proxy.calls["events:DescribeEventBus"] == 1
    assert caplog.text.count("not checking whether the event bus exists") == 1


def test_trouble_at_eventbridge_is_no_absent_bus(
    prerequisites: Prerequisites, proxy: RefusingProxy, aws: Aws
) -> None:
    proxy.refuse("events:DescribeEventBus", "InternalException", status=500)
    assert after_an_hour(prerequisites) == 0
    assert "blocked" not in prerequisites.monitor.status()
    proxy.refused.clear()
    aws.remove_bus()
    assert prerequisites.check() == 0, "not at once"
    assert after_an_hour(prerequisites) > 0
    proxy.refuse("events:DescribeEventBus", "InternalException", status=500)
    assert after_an_hour(prerequisites) > 0, "what was absent is so until it is seen"


def test_a_queue_changes(prerequisites: Prerequisites, aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    prerequisites.check()
    after_an_hour(prerequisites)
    assert prerequisites.max_receives == 0
    assert caplog.text.count("no dead-letter queue") == 1
    policy = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:123456789012:{aws.bus}", "maxReceiveCount": 4}
    aws.client("sqs").create_queue(QueueName=aws.bus)
    redrive = {"RedrivePolicy": json.dumps(policy)}
    aws.client("sqs").set_queue_attributes(QueueUrl=aws.jobs, Attributes=redrive)
    after_an_hour(prerequisites)
    assert prerequisites.max_receives == 4


def test_a_question_about_the_queue_that_is_not_answered_is_asked_again_soon(
    prerequisites: Prerequisites, proxy: RefusingProxy, aws: Aws
) -> None:
    """One lost answer must not keep a worker for an hour from telling of jobs that are dead."""
    proxy.refuse("sqs:GetQueueAttributes", "InternalFailure", status=500)
    assert prerequisites.check() == 0
    assert prerequisites.max_receives is None
    proxy.refused.clear()
    until(lambda: prerequisites.check() == 0 and prerequisites.max_receives == 0, 10, "the answer")
    proxy.calls.clear()
    prerequisites.check()
    assert not proxy.calls


def test_the_bus_of_another_account_may_be_hidden_from_this_one(
    prerequisites: Prerequisites, aws: Aws
) -> None:
    aws.remove_bus()
    own = f"arn:aws:events:{REGION}:{aws.jobs.split('/')[-2]}:event-bus/{aws.bus}"
    prerequisites.event_bus = own.replace(aws.jobs.split("/")[-2], "999999999999")
    assert after_an_hour(prerequisites) == 0
    assert "blocked" not in prerequisites.monitor.status()
    prerequisites.event_bus = own
    assert after_an_hour(prerequisites) > 0
