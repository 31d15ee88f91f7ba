"""One-shot schedules of EventBridge Scheduler that end an instance which hangs, when its lease is over.

A schedule can't be tagged, so those of an instance lie in a tagged group of its own, and go with it.
https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-universal.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bake.aws import Aws, ClientError
from bake.creation import EXPIRES_TAG, Found, Resource, tag_of, time_of, unless_absent
from bake.errors import BakeError
from bake.instance import describe
from bake.retries import error_code
from bake.undo import Undo

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef

# The instance's own timer, and what forces a shutdown that hangs, come first.
AFTER = timedelta(minutes=5)
CANCEL, TERMINATE = "cancelSpotInstanceRequests", "terminateInstances"
EXISTS = "ConflictException"


class Reaper:
    """The schedules of one instance. `group` is theirs, and `role` what they take to act."""

    def __init__(self, aws: Aws, group: str, role: str) -> None:
        self.group, self.role = group, role
        self._aws = aws
        self._armed: dict[str, Mapping[str, list[str]]] = {}

    @classmethod
    def make(
        cls, aws: Aws, run: str, group: str, role: str, tags: list[TagTypeDef], expires: datetime, undo: Undo
    ) -> Reaper:
        """Create the group and the schedule, which does nothing until it is armed.

        This comes before the launch: raises BakeError with what Scheduler refuses.
        """
        found = cls(aws, group, role)
        try:
            found._group(run, tags, undo)
            undo.record("intended", what=f"schedule {group}/{TERMINATE}")
            found._create(TERMINATE, expires, {"InstanceIds": []}, "DISABLED")
        except ClientError as error:
            told = error.response["Error"].get("Message", "")
            raise BakeError(
                f"EventBridge Scheduler refuses the schedule that would end a builder which hangs: "
                f"{error_code(error)}: {told}",
                hint="nothing was launched; docs/aws.md has the rights that it needs, and what "
                "builder.reaper_role must be. Without builder.reaper there is no schedule",
            ) from error
        undo.record("scheduled", what=f"schedule {group}/{TERMINATE}")
        return found

    def arm(self, instance: str, expires: datetime) -> None:
        """Let the schedule terminate the instance; of a spot instance the request is cancelled first."""
        facts = describe(self._aws, instance)
        self._armed = {TERMINATE: {"InstanceIds": [instance]}}
        if request := (facts or {}).get("SpotInstanceRequestId"):
            self._armed[CANCEL] = {"SpotInstanceRequestIds": [request]}
            self._create(CANCEL, expires, self._armed[CANCEL], "ENABLED")
        self._move(expires)

    def renew(self, until: str) -> None:
        """Move the end, and the expiry in the group's tags."""
        if (expires := time_of(until)) is None:
            return
        self._move(expires)
        arn = self._aws.scheduler.get_schedule_group(Name=self.group)["Arn"]
        tags = [{"Key": EXPIRES_TAG, "Value": until}]
        self._aws.scheduler.tag_resource(ResourceArn=arn, Tags=tags)

    def _move(self, expires: datetime) -> None:
        for action, target in self._armed.items():
            self._aws.scheduler.update_schedule(**self._schedule(action, expires, target, "ENABLED"))

    def _create(self, action: str, expires: datetime, target: Mapping[str, list[str]], state: str) -> None:
        try:
            self._aws.scheduler.create_schedule(**self._schedule(action, expires, target, state))
        except ClientError as error:
            if error_code(error) != EXISTS:  # an earlier try did it, and its answer was lost
                raise

    def _schedule(
        self, action: str, expires: datetime, target: Mapping[str, list[str]], state: str
    ) -> dict[str, Any]:
        """All of a schedule: an update sets what it leaves out back to defaults."""
        # A persistent request would replace what ends before it is cancelled.
        at = expires.astimezone(UTC) + AFTER + timedelta(minutes=action == TERMINATE)
        return {
            "GroupName": self.group,
            "Name": action,
            "ScheduleExpression": f"at({at:%Y-%m-%dT%H:%M:%S})",
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "State": state,
            "Target": {
                "Arn": f"arn:{self.role.split(':')[1]}:scheduler:::aws-sdk:ec2:{action}",
                "RoleArn": self.role,
                "Input": json.dumps(target),
            },
        }

    def _group(self, run: str, tags: list[TagTypeDef], undo: Undo) -> None:
        aws = self._aws

        def make() -> str:
            aws.scheduler.create_schedule_group(Name=self.group, Tags=tags)
            return self.group

        def find() -> Found | None:
            arn = unless_absent(lambda: aws.scheduler.get_schedule_group(Name=self.group)["Arn"])
            if arn is None:
                return None
            listed = aws.scheduler.list_tags_for_resource(ResourceArn=arn)
            return Found(self.group, tag_of(listed["Tags"]))

        Resource(
            "schedule group",
            self.group,
            run,
            aws,
            make,
            find,
            # Scheduler deletes what is in it.
            remove=lambda found: unless_absent(lambda: aws.scheduler.delete_schedule_group(Name=found)),
            by_hand=lambda found: aws.command("scheduler", "delete-schedule-group", "--name", self.group),
        ).create(undo)
