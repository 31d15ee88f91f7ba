"""Instance refreshes of groups without instances: AWS's checks, errors and states, and nothing is replaced.

A refresh of an empty group is pending, in progress and, with a bake time, baking for a while by the API's
clock; then the group has the desired configuration. What only instances could bring about, progress and
failures, is said by `tell`.
https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_StartInstanceRefresh.html
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError
from moto.core import utils

from bake.localcloud.api import refresh_checks

# How long each state lasts at least.
STATE = timedelta(seconds=1)
ACTIVE = frozenset({"Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress"})
REVERSIBLE = frozenset({"Pending", "InProgress", "Baking"})
ENDED_WELL = "Successful"
_BLOCKED = "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh."
# What UpdateAutoScalingGroup answers meanwhile.
LOCKED = (
    "An active instance refresh with a desired configuration exists. All configuration options derived from "
    "the desired configuration are not available for update while the instance refresh is active."
)


@dataclass
class InstanceRefresh:
    """One refresh: `told` is what DescribeInstanceRefreshes says, `due` its later states, by the clock."""

    told: dict[str, Any]
    due: list[tuple[datetime, str]] = field(default_factory=list)

    @property
    def status(self) -> str:
        """Its state now."""
        return str(self.told["Status"])

    @property
    def desired(self) -> Mapping[str, Any]:
        """What the group is to have; empty where the refresh was given none."""
        found: Mapping[str, Any] = self.told.get("DesiredConfiguration") or {}
        return found

    def later(self, *states: tuple[timedelta, str]) -> None:
        """Let it have these states instead of those that were due, each so long after the one before."""
        moment, self.due = utils.utcnow(), []
        for span, status in states:
            moment += span
            self.due.append((moment, status))


def all_of(group: Any) -> list[InstanceRefresh]:
    """A group's refreshes, the newest first."""
    found: list[InstanceRefresh] = vars(group).setdefault("instance_refreshes", [])
    return found


def active(group: Any) -> InstanceRefresh | None:
    """The refresh of a group that has not ended."""
    return next((one for one in all_of(group) if one.status in ACTIVE), None)


def start(group: Any, asked: Mapping[str, Any], check_template: Callable[[dict[str, Any]], Any]) -> str:
    """StartInstanceRefresh; the refresh's id. `check_template` refuses a template that is not there."""
    refresh_checks.check(group, asked, check_template)
    if active(group) is not None:
        raise AutoscalingClientError("InstanceRefreshInProgress", _BLOCKED)
    preferences = dict(asked.get("Preferences") or {})
    refresh = InstanceRefresh(
        {
            "InstanceRefreshId": str(uuid.uuid4()),
            "AutoScalingGroupName": group.name,
            "Status": "Pending",
            "StartTime": utils.utcnow(),
            "PercentageComplete": 0,
            "InstancesToUpdate": 0,
            "Strategy": asked.get("Strategy") or "Rolling",
            "Preferences": preferences,
            "DesiredConfiguration": asked.get("DesiredConfiguration"),
        }
    )
    bake = timedelta(seconds=int(preferences.get("BakeTime") or 0))
    baking = [(STATE, "Baking")] if bake else []
    refresh.later((STATE, "InProgress"), *baking, (bake or STATE, ENDED_WELL))
    all_of(group).insert(0, refresh)
    return str(refresh.told["InstanceRefreshId"])


def cancel(group: Any) -> str:
    """CancelInstanceRefresh, of a refresh or of a rollback; what was replaced stays."""
    found = active(group)
    if found is None:
        raise _none(group)
    _enter(found, "Cancelling", "Cancelled due to user request.")
    found.later((STATE, "Cancelled"))
    return str(found.told["InstanceRefreshId"])


def roll_back(group: Any) -> str:
    """RollbackInstanceRefresh: the group keeps the configuration that it had."""
    found = active(group)
    if found is None or found.status not in REVERSIBLE:
        raise _none(group)
    if why := refresh_checks.irreversible(group, found.desired):
        raise AutoscalingClientError("IrreversibleInstanceRefresh", why)
    found.told["RollbackDetails"] = {
        "RollbackReason": "Rollback was initiated by a user request.",
        "RollbackStartTime": utils.utcnow(),
        "PercentageCompleteOnRollback": found.told["PercentageComplete"],
        "InstancesToUpdateOnRollback": found.told["InstancesToUpdate"],
    }
    _enter(found, "RollbackInProgress")
    found.later((STATE, "RollbackSuccessful"))
    return str(found.told["InstanceRefreshId"])


def settle(group: Any) -> Mapping[str, Any]:
    """Go on to the states that are due; what the group is to have from now on, empty if nothing."""
    now = utils.utcnow()
    for refresh in all_of(group):
        while refresh.due and refresh.due[0][0] <= now:
            _, status = refresh.due.pop(0)
            _enter(refresh, status)
            if status == ENDED_WELL:
                return refresh.desired
    return {}


def tell(group: Any, status: str, **told: Any) -> None:
    """Put a group's newest refresh into a state, with what DescribeInstanceRefreshes says of it; it stays so.

    It stands in for instances: how many are replaced, why one could not be launched.
    """
    refresh = all_of(group)[0]
    refresh.due = [(utils.utcnow(), status)] if status == ENDED_WELL else []
    _enter(refresh, refresh.status if status == ENDED_WELL else status)
    refresh.told |= told


def _enter(refresh: InstanceRefresh, status: str, reason: str = "") -> None:
    refresh.told["Status"] = status
    if reason:
        refresh.told["StatusReason"] = reason
    if status == ENDED_WELL:
        refresh.told |= {"PercentageComplete": 100, "InstancesToUpdate": 0}
    if status not in ACTIVE:
        refresh.told["EndTime"] = utils.utcnow()


def _none(group: Any) -> AutoscalingClientError:
    return AutoscalingClientError(
        "ActiveInstanceRefreshNotFound",
        f"No in progress or pending Instance Refresh found for Auto Scaling group {group.name}",
    )
