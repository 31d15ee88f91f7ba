"""moto's EventBridge Scheduler, with one-shot schedules that are carried out when they are due by the clock.

Only calls of EC2 that end instances are supported as targets, which is what a bake's reaper needs; the role
that a schedule takes must let Scheduler assume it, and allow the call.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import unquote

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.scheduler.exceptions import JsonRESTError, ValidationException
from moto.scheduler.models import EventBridgeSchedulerBackend, Schedule, ScheduleGroup, scheduler_backends

from bake.localcloud.api.access import ec2_needs
from bake.localcloud.api.access.keys import Principal
from bake.localcloud.api.access.policies import Authoriser
from bake.localcloud.api.clock import CloudClock
from bake.localcloud.settings import ACCOUNT

log = logging.getLogger(__name__)

_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
SERVICE = "scheduler.amazonaws.com"
_ARN = "arn:aws:scheduler:::aws-sdk:ec2:"
# By target: the call's list of ids, the same in EC2's own parameters, its name, and how it is made.
TARGETS: dict[str, tuple[str, str, str, Callable[[Any, list[str]], Any]]] = {
    f"{_ARN}terminateInstances": (
        "InstanceIds",
        "InstanceId",
        "TerminateInstances",
        lambda ec2, ids: ec2.terminate_instances(ids),
    ),
    f"{_ARN}cancelSpotInstanceRequests": (
        "SpotInstanceRequestIds",
        "SpotInstanceRequestId",
        "CancelSpotInstanceRequests",
        lambda ec2, ids: ec2.cancel_spot_instance_requests(ids),
    ),
}


class LocalScheduler(EventBridgeSchedulerBackend):  # type: ignore[misc]
    """One region's schedules."""

    # moto finds a service's URLs by the module of its backend's class.
    __module__ = EventBridgeSchedulerBackend.__module__

    clock: ClassVar[CloudClock]
    authoriser: ClassVar[Authoriser] = Authoriser()

    def create_schedule(self, **asked: Any) -> Schedule:
        """Create a schedule, or refuse it as Scheduler does."""
        self.get_schedule_group(asked.get("group_name"))
        self._check(asked)
        return self._wait(super().create_schedule(**asked))

    def update_schedule(self, **asked: Any) -> Schedule:
        """Replace a schedule; what was due at its old time is not done."""
        self._check(asked)
        asked["state"] = asked.get("state") or "ENABLED"
        return self._wait(super().update_schedule(**asked))

    def create_schedule_group(self, name: str, tags: list[dict[str, str]]) -> ScheduleGroup:
        """As moto's, which replaces one of the same name."""
        if name in self.schedule_groups:
            raise JsonRESTError("ConflictException", f"Schedule group {name} already exists.")
        return super().create_schedule_group(name, tags)

    def delete_schedule_group(self, name: str | None) -> None:
        """As moto's, which fails on one that it does not know."""
        self.get_schedule_group(name)
        super().delete_schedule_group(name)

    def take_up(self) -> None:
        """Wait for the schedules that there are: they come from another cloud's records."""
        for group in self.schedule_groups.values():
            for schedule in group.schedules.values():
                self._wait(schedule)

    def _check(self, asked: dict[str, Any]) -> None:
        zone, target = asked.get("schedule_expression_timezone") or "UTC", asked["target"]
        if zone != "UTC" or _moment(asked["schedule_expression"]) is None:
            raise ValidationException(
                f"Invalid Schedule Expression {asked['schedule_expression']}: the local cloud has one-shot "
                "schedules, at(yyyy-mm-ddThh:mm:ss), in UTC"
            )
        if asked["flexible_time_window"].get("Mode") != "OFF":
            raise ValidationException("The local cloud has no flexible time windows: FlexibleTimeWindow OFF")
        if target["Arn"] not in TARGETS:
            raise ValidationException(f"Not in the local cloud: the target {str(target['Arn'])[:200]}")
        _ids(target)
        if not _trusts(target["RoleArn"]):
            raise ValidationException(
                "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
            )

    def _wait(self, schedule: Schedule) -> Schedule:
        schedule.version = version = object()
        moment = _moment(schedule.schedule_expression)
        assert moment is not None  # checked
        self.clock.at(moment, lambda: self._carry_out(schedule, version))
        return schedule

    def _carry_out(self, schedule: Schedule, version: object) -> None:
        group = self.schedule_groups.get(schedule.group_name)
        if group is None or group.schedules.get(schedule.name) is not schedule:
            return
        if schedule.version is not version or schedule.state != "ENABLED":
            return
        _, parameter, operation, act = TARGETS[schedule.target["Arn"]]
        ids = _ids(schedule.target)
        try:
            role = Principal(role=_name(schedule.target["RoleArn"]), session=schedule.name)
            named = {f"{parameter}.{number}": one for number, one in enumerate(ids, 1)}
            needs = ec2_needs.needs_of(operation, self.region_name, named, self.authoriser.inventory)
            self.authoriser.authorise(role, needs, self.region_name)
            act(ec2_backends[ACCOUNT][self.region_name], ids)
        except Exception as error:  # as Scheduler: what the target refuses is not told to anybody
            log.warning("schedule %s/%s: %s", schedule.group_name, schedule.name, error)
        if schedule.action_after_completion == "DELETE":
            group.schedules.pop(schedule.name, None)


def _moment(expression: str) -> datetime | None:
    found = _AT.fullmatch(expression)
    try:
        return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None
    except ValueError:
        return None


def _ids(target: dict[str, Any]) -> list[str]:
    """What the call is about, by the JSON that is sent to it."""
    name, *_ = TARGETS[target["Arn"]]
    try:
        given = json.loads(target.get("Input") or "{}")
    except ValueError as error:
        raise ValidationException("The Input of the target is not JSON.") from error
    ids = given.get(name) if isinstance(given, dict) else None
    return [str(one) for one in ids] if isinstance(ids, list) else []


def _name(arn: str) -> str:
    return unquote(str(arn)).rpartition("/")[2]


def _trusts(arn: str) -> bool:
    """Whether there is such a role, and Scheduler may assume it."""
    roles = iam_backends[ACCOUNT]["aws"].roles.values()
    role = next((one for one in roles if one.arn == arn), None)
    if role is None:
        return False
    statements = json.loads(role.assume_role_policy_document)["Statement"]
    services = [one.get("Principal", {}).get("Service") for one in statements if one["Effect"] == "Allow"]
    return any(SERVICE in (one if isinstance(one, list) else [one]) for one in services)


def install(clock: CloudClock, authoriser: Authoriser) -> None:
    """Make moto build its Scheduler from LocalScheduler; to be called before the first request."""
    LocalScheduler.clock = clock
    LocalScheduler.authoriser = authoriser
    scheduler_backends.backend = LocalScheduler
