"""How the policies take a group from none to as many as the jobs need, and back.

A model of Auto Scaling, by its documentation, goes by the numbers and expressions of the template, a minute
at a time: https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html
"""

from __future__ import annotations

import math
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from bake.fleet.backlog import CODE

from .fleets import HOME, SPOT, resources


class Group:
    """Desired capacity by the policies of a template."""

    def __init__(self, **changes: Any) -> None:
        found = resources("workers", **changes)
        self.of = {name: one["Properties"] for name, one in found.items()}
        self.desired = 0
        self.idle = 0

    def minute(self, backlog: int) -> int:
        """A minute with so many jobs; the desired capacity after it."""
        self.idle = 0 if self._breaches("SleepAlarm", backlog) is False else self.idle + 1
        wishes = [self.desired]
        if self._breaches("WakeAlarm", self._value(self.of["WakeAlarm"]["Metrics"], backlog)):
            wishes.append(self.desired + self._step("WakePolicy"))
        elif self.desired:
            config = self.of["BacklogPolicy"]["TargetTrackingConfiguration"]
            each = self._value(config["CustomizedMetricSpecification"]["Metrics"], backlog)
            wishes = [max(1, math.ceil(self.desired * each / config["TargetValue"]))]
        if self.idle >= self.of["SleepAlarm"]["EvaluationPeriods"]:
            wishes = [self._step("SleepPolicy")]
        self.desired = min(max(wishes), int(self.of["Workers"]["MaxSize"]))
        return self.desired

    def _breaches(self, alarm: str, value: float) -> bool:
        found = self.of[alarm]
        if found["ComparisonOperator"] == "LessThanThreshold":
            return value < float(found["Threshold"])
        assert found["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
        return value >= float(found["Threshold"])

    def _step(self, policy: str) -> int:
        [step] = self.of[policy]["StepAdjustments"]
        return int(step["ScalingAdjustment"])

    def _value(self, metrics: list[Any], backlog: int) -> float:
        [expression] = [one["Expression"] for one in metrics if one["ReturnData"]]
        names = {"backlog": backlog, "desired": self.desired}
        assert {one["Id"] for one in metrics if not one["ReturnData"]} == set(names)
        value: float = eval(expression, {"IF": lambda test, yes, no: yes if test else no}, names)
        return value


def test_from_none_to_as_many_as_are_needed_and_back_to_none() -> None:
    group = Group(max_size=10, messages_per_instance=20)
    assert [group.minute(backlog) for backlog in (0, 200, 200, 200)] == [0, 1, 10, 10]
    assert [group.minute(backlog) for backlog in (110, 35, 5, 1)] == [6, 2, 1, 1]
    assert [group.minute(0) for _ in range(14)] == [1] * 14  # one more job may come
    assert [group.minute(0) for _ in range(3)] == [0, 0, 0]
    assert group.minute(1) == 1


def test_instances_that_load_do_not_call_for_more() -> None:
    """None of the ten is in service for the first half hour, and no more than these ten are asked for."""
    group = Group(max_size=100, messages_per_instance=20)
    assert {group.minute(200) for _ in range(30)} == {1, 10}


def test_it_stays_within_its_size() -> None:
    group = Group(max_size=3, messages_per_instance=1)
    assert max(group.minute(1000) for _ in range(5)) == 3


def test_while_nobody_counts_all_stays_as_it_is() -> None:
    found = resources("workers")
    for alarm in ("WakeAlarm", "SleepAlarm"):
        assert found[alarm]["Properties"]["TreatMissingData"] == "notBreaching"
    assert found["UncountedAlarm"]["Properties"]["TreatMissingData"] == "breaching"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A moto server, which boto3 of this process goes to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    given = {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": SPOT}
    for name, value in {**given, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    yield url
    server.stop()


@pytest.mark.integration
def test_the_function_counts_jobs_in_one_region_and_tells_it_in_the_other(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs = boto3.client("sqs", region_name=HOME)
    name = f"count-{os.getpid()}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    for _ in range(5):
        sqs.send_message(QueueUrl=url, MessageBody="{}")
    sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2)  # in work: they count as well
    function = resources("workers", "CountJobs", worker={"cloudwatch_namespace": name})
    given = {**function["Environment"]["Variables"], "QUEUE_URL": url}
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    file = tmp_path / "index.py"
    file.write_text(function["Code"]["ZipFile"], encoding="utf-8")
    assert runpy.run_path(str(file))["handler"]({}, None) == 5
    [metric] = boto3.client("cloudwatch").list_metrics(Namespace=name)["Metrics"]
    alarm = resources("workers", "SleepAlarm")
    assert metric["MetricName"] == alarm["MetricName"] == "Backlog"
    assert [one["Name"] for one in metric["Dimensions"]] == [one["Name"] for one in alarm["Dimensions"]]
    assert metric["Dimensions"][0]["Value"] == name
    assert boto3.client("cloudwatch", region_name=HOME).list_metrics(Namespace=name)["Metrics"] == []


def test_the_function_fits_into_a_template() -> None:
    assert len(CODE.read_text(encoding="utf-8")) < 4096  # of Code.ZipFile
