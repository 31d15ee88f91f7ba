"""From none to one, from one to as many as the jobs need, and back to none."""

from __future__ import annotations

from typing import Any

from bake.fleet.group import GROUP
from bake.fleet.metrics import MINUTE, computed, desired, given, own
from bake.fleet.request import Fleet
from bake.fleet.resource import Resources, resource


def resources(fleet: Fleet) -> Resources:
    """The three policies, and the alarms of the first and the last; AWS makes those of the second itself."""
    return {
        "WakePolicy": _step("ChangeInCapacity", {"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}),
        "WakeAlarm": resource("AWS::CloudWatch::Alarm", _wake(fleet)),
        "BacklogPolicy": resource("AWS::AutoScaling::ScalingPolicy", _tracking(fleet)),
        "SleepPolicy": _step("ExactCapacity", {"MetricIntervalUpperBound": 0, "ScalingAdjustment": 0}),
        "SleepAlarm": resource("AWS::CloudWatch::Alarm", _sleep(fleet)),
    }


def _step(kind: str, step: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "AutoScalingGroupName": GROUP,
        "PolicyType": "StepScaling",
        "AdjustmentType": kind,
        "MetricAggregationType": "Maximum",
        "StepAdjustments": [step],
    }
    return resource("AWS::AutoScaling::ScalingPolicy", properties)


def _wake(fleet: Fleet) -> dict[str, Any]:
    """Jobs wait, and there is to be no instance: jobs per instance are not defined there."""
    return {
        "AlarmDescription": f"{fleet.name}: jobs wait, and no instance is launched. It launches the first.",
        "AlarmActions": [{"Ref": "WakePolicy"}],
        "Metrics": [
            given("backlog", own(fleet, "Backlog"), "Maximum", Period=MINUTE),
            given("desired", desired(), "Maximum", Period=MINUTE),
            computed("waiting", "IF(desired < 1, backlog, 0)", "Jobs without an instance"),
        ],
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "Threshold": 1,
        "EvaluationPeriods": 1,
        "TreatMissingData": "notBreaching",
    }


def _tracking(fleet: Fleet) -> dict[str, Any]:
    """Jobs for each instance that the group is to have.

    Not for each that is in service: loading the model takes minutes, and jobs for each of the few that are
    ready would launch more and more until the first of them are, up to the largest size.
    """
    return {
        "AutoScalingGroupName": GROUP,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingConfiguration": {
            "CustomizedMetricSpecification": {
                "Metrics": [
                    given("backlog", own(fleet, "Backlog"), "Maximum"),
                    given("desired", desired(), "Maximum"),
                    computed("each", "backlog / desired", "Jobs for each instance"),
                ],
            },
            "TargetValue": fleet.profile.fleet.messages_per_instance,
        },
    }


def _sleep(fleet: Fleet) -> dict[str, Any]:
    """There was no job for some time. While nobody counts them, all stays as it is."""
    minutes = fleet.profile.fleet.idle_minutes
    return {
        "AlarmDescription": f"{fleet.name}: no jobs for {minutes} minutes. It ends the last instances.",
        "AlarmActions": [{"Ref": "SleepPolicy"}],
        **own(fleet, "Backlog"),
        "Statistic": "Maximum",
        "Period": MINUTE,
        "EvaluationPeriods": minutes,
        "ComparisonOperator": "LessThanThreshold",
        "Threshold": 1,
        "TreatMissingData": "notBreaching",
    }
