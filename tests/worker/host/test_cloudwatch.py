"""The metric `Ready`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from flux_worker.host import cloudwatch
from flux_worker.host.cloudwatch import ReadyMetric
from flux_worker.host.imds import Imds
from flux_worker.host.monitor import Monitor
from flux_worker.settings import ServeSettings
from tests.worker.conftest import CREDENTIALS, REVISION, serving, until
from tests.worker.host.conftest import REGION, Ec2


@pytest.fixture
def metrics(endpoint: str) -> Any:
    keys: Any = {name.lower(): value for name, value in CREDENTIALS.items()}
    return boto3.client("cloudwatch", endpoint_url=endpoint, region_name=REGION, **keys)


def values(metrics: Any, namespace: str, statistic: str) -> list[float]:
    """One statistic of the metric, a value a minute."""
    now = datetime.now(UTC)
    found = metrics.get_metric_statistics(
        Namespace=namespace,
        MetricName="Ready",
        Dimensions=[{"Name": "QueueName", "Value": "jobs"}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=60,
        Statistics=[statistic],
    )
    return [point[statistic] for point in found["Datapoints"]]


def settings(**more: str) -> ServeSettings:
    given = {
        "FLUX_MODEL_REVISION": REVISION,
        "AWS_REGION": "eu-west-1",
        "FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
        "FLUX_BUCKET": "pictures",
        "FLUX_EVENT_BUS": "flux",
        "FLUX_STATE_DIR": "/nonexistent",
    }
    return ServeSettings.from_environment(given | more)


@pytest.fixture
def aws_environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(name, value)


def test_it_says_what_flux_ready_says_and_ends_with_0(
    aws_environment: None, ec2: Ec2, monitor: Monitor, metrics: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the instance's region, which is not the queue's."""
    monkeypatch.setattr(cloudwatch, "EVERY_SECONDS", 0.05)
    space = "Flux/said"
    metric = ReadyMetric(settings(FLUX_CLOUDWATCH_NAMESPACE=space), monitor, Imds(ec2.environment))
    metric.start()
    until(lambda: values(metrics, space, "SampleCount") != [], 10, "the first value")
    assert sum(values(metrics, space, "Sum")) == 0
    monitor.ready()
    until(lambda: max(values(metrics, space, "Maximum")) == 1, 10, "that it is ready")
    monitor.stopping()
    monkeypatch.setattr(cloudwatch, "EVERY_SECONDS", 600)
    metric.end()
    metric.join()
    assert not metric._thread.is_alive()
    assert min(values(metrics, space, "Minimum")) == 0


def test_without_a_namespace_no_call_is_made(monitor: Monitor) -> None:
    metric = ReadyMetric(settings(), monitor, Imds({"AWS_EC2_METADATA_DISABLED": "true"}))
    metric.start()
    assert not metric._thread.is_alive()
    metric.end()
    metric.join()


def test_a_failure_is_told_once_and_does_not_last(
    ec2: Ec2,
    aws_environment: None,
    monitor: Monitor,
    metrics: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "flux_worker.host.cloudwatch")
    monkeypatch.setattr(cloudwatch, "EVERY_SECONDS", 0.05)
    (ec2.folder / "refuse").touch()  # so the region is not known
    space = "Flux/failed"
    metric = ReadyMetric(settings(FLUX_CLOUDWATCH_NAMESPACE=space), monitor, Imds(ec2.environment))
    asked: list[float] = []
    put = metric._put
    monkeypatch.setattr(metric, "_put", lambda value: (asked.append(value), put(value)))
    metric.start()
    until(lambda: len(asked) > 3, 10, "some tries")
    assert caplog.text.count("is not published") == 1
    (ec2.folder / "refuse").unlink()
    until(lambda: "is published again" in caplog.text, 10, "a try that succeeds")
    metric.end()
    metric.join()
    assert values(metrics, space, "SampleCount")


def test_a_worker_publishes_it(environment: dict[str, str], aws: Any, metrics: Any, tmp_path: Path) -> None:
    space = "Flux/served"
    own = environment | {"FLUX_CLOUDWATCH_NAMESPACE": space, "SPOT_AWS_REGION": REGION}
    with serving(own, tmp_path) as worker:
        assert worker.stop() == 0
    found = metrics.list_metrics(Namespace=space)["Metrics"]
    assert [(one["MetricName"], one["Dimensions"]) for one in found] == [
        ("Ready", [{"Name": "QueueName", "Value": aws.jobs.rpartition("/")[2]}])
    ]
