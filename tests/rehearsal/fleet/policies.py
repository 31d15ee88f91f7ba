"""What a fleet's policies and alarms decide, a minute after the other, as its template says.

A policy, an alarm or an expression of another shape is an error.
https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Target tracking makes its alarms itself: minutes above the target, and below 90% of it.
_ABOVE_MINUTES, _BELOW_MINUTES, _BELOW = 3, 15, 0.9
_WAITING, _EACH = "IF(desired < 1, backlog, 0)", "backlog / desired"
_GREATER, _LESS = "GreaterThanOrEqualToThreshold", "LessThanThreshold"


@dataclass(frozen=True)
class Policies:
    """The figures of the three policies, for a group of `least` to `largest` instances.

    From none, `waking` instances are launched in a minute with at least `wakes_at` jobs. Later, there are as
    many that each has `each` jobs. After `idle_minutes` without a job there is none.
    """

    least: int
    largest: int
    waking: int
    wakes_at: float
    each: float
    idle_minutes: int

    @classmethod
    def of(
        cls, group: Mapping[str, Any], read: Mapping[str, Mapping[str, Any]], refs: Mapping[str, str]
    ) -> Policies:
        """Read them from the properties of the group and of what was read; `refs` are what Ref gives."""
        policies = {name: one for name, one in read.items() if "PolicyType" in one}
        tracking = {name for name, one in policies.items() if one["PolicyType"] == "TargetTrackingScaling"}
        [target] = [policies[name]["TargetTrackingConfiguration"] for name in tracking]
        metrics = target["CustomizedMetricSpecification"]["Metrics"]
        assert [one["Expression"] for one in metrics if one["ReturnData"]] == [_EACH]
        steps = {name: one for name, one in policies.items() if name not in tracking}
        alarms = {name: _alarm_of(read, refs[name]) for name in steps}
        [wake] = [name for name, one in alarms.items() if one["ComparisonOperator"] == _GREATER]
        [sleep] = [name for name, one in alarms.items() if one["ComparisonOperator"] == _LESS]
        assert [one["Expression"] for one in alarms[wake]["Metrics"] if one["ReturnData"]] == [_WAITING]
        assert alarms[wake]["EvaluationPeriods"] == 1
        assert (alarms[sleep]["MetricName"], alarms[sleep]["Threshold"]) == ("Backlog", 1)
        assert _adjustment(steps[sleep], "ExactCapacity") == 0
        return cls(
            least=int(group["MinSize"]),
            largest=int(group["MaxSize"]),
            waking=_adjustment(steps[wake], "ChangeInCapacity"),
            wakes_at=float(alarms[wake]["Threshold"]),
            each=float(target["TargetValue"]),
            idle_minutes=int(alarms[sleep]["EvaluationPeriods"]),
        )


def _alarm_of(read: Mapping[str, Mapping[str, Any]], policy: str) -> Mapping[str, Any]:
    """The alarm that a step policy acts on."""
    [alarm] = [one for one in read.values() if policy in one.get("AlarmActions", [])]
    return alarm


def _adjustment(policy: Mapping[str, Any], kind: str) -> int:
    [step] = policy["StepAdjustments"]
    assert policy["AdjustmentType"] == kind
    return int(step["ScalingAdjustment"])


class Decisions:
    """The desired count, minute by minute."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._above = self._below = self._idle = 0
        self.desired = policies.least

    def minute(self, backlog: int) -> int:
        """The desired count after a minute in which so many jobs waited or were in work."""
        policies, now = self._policies, self.desired
        self._idle = self._idle + 1 if backlog < 1 else 0
        each = backlog / now if now else 0.0
        self._above = self._above + 1 if each > policies.each else 0
        self._below = self._below + 1 if now and each < _BELOW * policies.each else 0
        if now < 1:
            wanted = policies.waking if backlog >= policies.wakes_at else 0
        elif self._idle >= policies.idle_minutes:
            wanted = 0
        elif self._above >= _ABOVE_MINUTES or self._below >= _BELOW_MINUTES:
            self._above = self._below = 0
            wanted = math.ceil(backlog / policies.each)
        else:
            wanted = now
        self.desired = max(policies.least, min(wanted, policies.largest))
        return self.desired
