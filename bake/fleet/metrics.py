"""CloudWatch's metrics, as alarms and scaling policies name them."""

from __future__ import annotations

from typing import Any

from bake.fleet.group import GROUP
from bake.fleet.request import Fleet

MINUTE = 60


def dimensions(**values: Any) -> list[dict[str, Any]]:
    """A metric's dimensions."""
    return [{"Name": name, "Value": value} for name, value in values.items()]


def own(fleet: Fleet, name: str) -> dict[str, Any]:
    """A metric that the fleet itself publishes about its queue, in the region of the instances."""
    return {
        "Namespace": fleet.namespace,
        "MetricName": name,
        "Dimensions": dimensions(QueueName=fleet.queue_name),
    }


def desired() -> dict[str, Any]:
    """How many instances the group is to have."""
    return {
        "Namespace": "AWS/AutoScaling",
        "MetricName": "GroupDesiredCapacity",
        "Dimensions": dimensions(AutoScalingGroupName=GROUP),
    }


def given(name: str, metric: dict[str, Any], statistic: str, **more: Any) -> dict[str, Any]:
    """A metric that an expression uses by `name`; alarms say its period, scaling policies don't."""
    return {
        "Id": name,
        "MetricStat": {"Metric": metric, **more, "Stat": statistic},
        "ReturnData": False,
    }


def computed(name: str, expression: str, label: str) -> dict[str, Any]:
    """The expression that an alarm or a policy goes by."""
    return {"Id": name, "Expression": expression, "Label": label, "ReturnData": True}
