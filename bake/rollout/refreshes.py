"""Instance refreshes: find, start, follow, cancel and roll back those of a group.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_InstanceRefresh.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bake.aws import Aws, ClientError, error_code
from bake.creation import stamp
from bake.errors import BakeError

Say = Callable[[str], None]
ENDS = frozenset({"Successful", "Failed", "Cancelled", "RollbackSuccessful", "RollbackFailed"})
IN_PROGRESS, NONE_ACTIVE = "InstanceRefreshInProgress", "ActiveInstanceRefreshNotFound"
# Seconds until a refresh that was started is told of.
SHOWN = 120.0
# Two checkpoints and a bake time, each of two days at most, and as long again for what lies between.
FOLLOWED = 12 * 86_400.0


@dataclass(frozen=True)
class Refresh:
    """One refresh of a group. `left` is the number of instances to update; `told` is AWS's answer."""

    id: str
    status: str
    percentage: int
    left: int | None
    reason: str
    started: datetime | None = None
    told: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def ended(self) -> bool:
        """Whether it goes on no more."""
        return self.status in ENDS

    @property
    def line(self) -> str:
        """Its state in a line."""
        left = "" if self.left is None or self.ended else f", {self.left} instances left"
        since = f" since {stamp(self.started)}" if self.started and not self.ended else ""
        return f"{self.status}, {self.percentage} %{left}{since}{f': {self.reason}' if self.reason else ''}"

    def as_dict(self) -> dict[str, Any]:
        """The refresh for JSON."""
        return {
            "id": self.id,
            "status": self.status,
            "percentage": self.percentage,
            "instances_left": self.left,
            "reason": self.reason,
            "started": stamp(self.started) if self.started else None,
            "ended": stamp(self.told["EndTime"]) if self.told.get("EndTime") else None,
            "strategy": self.told.get("Strategy"),
        }


def newest(aws: Aws, group: str) -> Refresh | None:
    """A group's newest refresh of the last six weeks; AWS tells the newest first."""
    asked = aws.autoscaling.describe_instance_refreshes(AutoScalingGroupName=group, MaxRecords=1)
    return next(map(_refresh, asked["InstanceRefreshes"]), None)


def active(aws: Aws, group: str) -> Refresh | None:
    """The refresh of a group that goes on: AWS starts no other meanwhile."""
    found = newest(aws, group)
    return None if found is None or found.ended else found


def start(aws: Aws, request: Mapping[str, Any]) -> Refresh:
    """StartInstanceRefresh; the refresh once AWS tells of it.

    A call whose answer was lost is sent again: where the refresh that is in the way then is to have the same
    configuration, it is this one.
    """
    group = str(request["AutoScalingGroupName"])
    try:
        made = str(aws.autoscaling.start_instance_refresh(**request)["InstanceRefreshId"])
    except ClientError as error:
        found = active(aws, group) if error_code(error) == IN_PROGRESS else None
        if found is None or found.told.get("DesiredConfiguration") != request["DesiredConfiguration"]:
            raise
        return found
    return aws.wait(f"the refresh {made}", lambda: _of_id(aws, group, made), timeout=SHOWN)


def follow(aws: Aws, group: str, refresh: Refresh, say: Say) -> Refresh:
    """Wait until a refresh has ended, and tell each change of it; the refresh then."""
    told: list[str] = []

    def look() -> Refresh | None:
        now = _of_id(aws, group, refresh.id)
        if now is not None and now.line not in told[-1:]:
            told.append(now.line)
            say(f"{group}: {now.line}")
        return now if now is not None and now.ended else None

    return aws.wait(f"the end of the refresh {refresh.id}", look, timeout=FOLLOWED, longest=15.0)


def cancel(aws: Aws, group: str) -> Refresh:
    """Cancel the refresh that goes on: what it replaced stays. BakeError where none does."""
    return _end(aws, group, aws.autoscaling.cancel_instance_refresh)


def roll_back(aws: Aws, group: str) -> Refresh:
    """Roll the refresh back that goes on. BakeError where none does, or where AWS can't go back."""
    return _end(aws, group, aws.autoscaling.rollback_instance_refresh)


def _end(aws: Aws, group: str, call: Callable[..., Any]) -> Refresh:
    try:
        made = str(call(AutoScalingGroupName=group)["InstanceRefreshId"])
    except ClientError as error:
        if error_code(error) == NONE_ACTIVE:
            last = newest(aws, group)
            raise BakeError(
                f"no refresh of {group} goes on"
                + (f"; the last one, {last.id}, is {last.line}" if last else "; it has had none in six weeks")
            ) from error
        if error_code(error) == "IrreversibleInstanceRefresh":
            why = error.response["Error"].get("Message", "")
            raise BakeError(
                f"AWS can't roll the refresh of {group} back: {why}",
                hint="cancel it instead (--cancel): what it replaced stays, and the group keeps what it has",
            ) from error
        raise
    return aws.wait(f"the refresh {made}", lambda: _of_id(aws, group, made), timeout=SHOWN)


def _of_id(aws: Aws, group: str, identity: str) -> Refresh | None:
    asked = aws.autoscaling.describe_instance_refreshes(
        AutoScalingGroupName=group, InstanceRefreshIds=[identity]
    )
    return next(map(_refresh, asked["InstanceRefreshes"]), None)


def _refresh(told: Mapping[str, Any]) -> Refresh:
    return Refresh(
        str(told["InstanceRefreshId"]),
        str(told["Status"]),
        int(told.get("PercentageComplete", 0)),
        told.get("InstancesToUpdate"),
        " ".join(str(told.get("StatusReason", "")).split()),
        told.get("StartTime"),
        told,
    )
