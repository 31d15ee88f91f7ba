"""The status, the metrics and the log say why a worker does not receive."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import Aws, Served, free_ports, serve_environment, serving, until
from tests.worker.refusing_proxy import RefusingProxy


@pytest.fixture(scope="module")
def proxy(aws: Aws) -> Iterator[RefusingProxy]:
    with RefusingProxy(aws.endpoint).running() as running:
        yield running


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports()


@pytest.fixture(scope="module")
def blocked(
    aws: Aws, proxy: RefusingProxy, cache: Path, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A worker whose event bus is not there yet."""
    aws.remove_bus()
    environment = serve_environment(aws, cache, tmp_path_factory.mktemp("state"))
    environment |= {"AWS_ENDPOINT_URL": proxy.url, "FLUX_METRICS_PORT": str(port)}
    elsewhere = proxy.url.replace("127.0.0.1", "localhost")
    environment["FLUX_QUEUE_URL"] = elsewhere + aws.jobs.removeprefix(aws.endpoint)
    with serving(environment, tmp_path_factory.mktemp("worker")) as served:
        yield served


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return str(answer.read().decode())


def status(port: int) -> dict[str, Any]:
    return json.loads(get(port, "/status"))  # type: ignore[no-any-return]


def failures(port: int, service: str) -> float:
    found = re.search(rf'^flux_aws_failures_total{{service="{service}"}} (.+)$', get(port, "/metrics"), re.M)
    assert found
    return float(found[1])


def test_without_its_bus_a_worker_takes_no_job(
    blocked: Served, aws: Aws, proxy: RefusingProxy, port: int
) -> None:
    """EventBridge has answered with success for buses that are not there."""
    aws.send({"id": "heard", "prompt": "a cat", "width": 256, "height": 256, "steps": 1})
    until(lambda: bool(status(port).get("blocked")), 20, "the worker to be blocked")
    found = status(port)
    assert found["ready"] is False
    [why] = found["blocked"]
    assert why.startswith("Cannot receive without the event bus: the event bus ")
    assert f"{aws.bus} does not exist, says EventBridge" in why
    assert found["doing"] == why
    assert proxy.calls["sqs:ReceiveMessage"] == 0
    assert failures(port, "events") >= 1
    assert "READY=1" in blocked.told, "the model is loaded all the same"
    aws.make_bus()
    assert aws.event(60)["detail"]["id"] == "heard"
    assert status(port)["ready"] is True


def test_a_url_on_another_host_than_boto3_asks_is_said_at_the_start(blocked: Served) -> None:
    said = [line for line in blocked.lines() if "FLUX_QUEUE_URL names localhost:" in line["message"]]
    assert [line["level"] for line in said] == ["warning"]


REFUSED = {
    "refused": ("AccessDenied", 403, "SQS refuses sqs:ReceiveMessage on the queue "),
    "absent": ("AWS.SimpleQueueService.NonExistentQueue", 400, "does not exist, says SQS to sqs:Receive"),
    "unknown-key": ("InvalidClientTokenId", 403, "SQS does not accept these credentials for sqs:Receive"),
    "expired": ("ExpiredToken", 403, "the credentials have expired, says SQS to sqs:Receive"),
    "broken": ("InternalError", 500, "SQS answers sqs:ReceiveMessage on the queue "),
    "unreachable": (None, 0, "is not reachable for sqs:ReceiveMessage on the queue "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_receiving_that_fails_shows_and_ends(
    blocked: Served, aws: Aws, proxy: RefusingProxy, port: int, case: str
) -> None:
    code, http, why = REFUSED[case]
    told = len(blocked.told)
    before = failures(port, "sqs")
    proxy.refuse("sqs:ReceiveMessage", code, status=http)
    aws.send({"id": case, "prompt": "a cat", "width": 257})  # ends the poll under way
    until(lambda: why in str(status(port).get("blocked")), 60, why)
    assert status(port)["ready"] is False
    assert status(port)["doing"].startswith("Cannot receive: ")
    assert "flux_ready 0.0" in get(port, "/metrics")
    assert failures(port, "sqs") > before
    proxy.refused.clear()
    until(lambda: status(port)["ready"], 60, "the worker to receive again")
    assert "blocked" not in status(port)
    blocked.wait_told("STATUS=Waiting for jobs", since=told)
    assert "READY=1" not in blocked.told[told:], "systemd hears nothing of it"
    assert blocked.process.poll() is None
