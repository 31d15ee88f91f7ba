"""EventBridge Scheduler of the local cloud: one-shot schedules that end instances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from bake.localcloud.cli import local

from .moto_account import new

pytestmark = pytest.mark.root
ARN = "arn:aws:scheduler:::aws-sdk:ec2:"


@pytest.fixture
def scheduler(account: Any) -> Iterator[Any]:
    """Its client; the clock is reset at the end."""
    yield account.client("scheduler", "SPOT_AWS_REGION")
    clock("reset")


def clock(span: str) -> None:
    assert CliRunner().invoke(local, ["clock", span]).exit_code == 0


def schedule(account: Any, group: str, instance: str, hours: float, **more: Any) -> dict[str, Any]:
    at = datetime.now(UTC) + timedelta(hours=hours)
    target = {
        "Arn": f"{ARN}terminateInstances",
        "RoleArn": account.cloud.environment["BAKE_REAPER_ROLE"],
        "Input": json.dumps({"InstanceIds": [instance]}),
    }
    return {
        "Name": "end",
        "GroupName": group,
        "ScheduleExpression": f"at({at:%Y-%m-%dT%H:%M:%S})",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {**target, **more},
    }


def state(account: Any, instance: str) -> str:
    [group] = account.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return str(group["Instances"][0]["State"]["Name"])


def test_a_schedule_ends_an_instance_when_it_is_due_and_not_before(account: Any, scheduler: Any) -> None:
    """One was moved, one is disabled, one went with its group: none is carried out at its old time."""
    name, other = new("bake"), new("bake")
    launched = account.launch()
    try:
        scheduler.create_schedule_group(Name=name)
        scheduler.create_schedule_group(Name=other)
        scheduler.create_schedule(**schedule(account, name, launched.id, 1))
        scheduler.create_schedule(
            **{**schedule(account, name, launched.id, 1), "Name": "off"}, State="DISABLED"
        )
        scheduler.create_schedule(**schedule(account, other, launched.id, 1))
        scheduler.delete_schedule_group(Name=other)
        scheduler.update_schedule(**schedule(account, name, launched.id, 5))
        account.reach(launched.id, "running")
        clock("+2h")
        # What is due is done in order of time: this one's end shows that the others' time is over.
        witness = schedule(account, name, "i-0123456789abcdef0", 1.5)
        scheduler.create_schedule(**{**witness, "Name": "witness"})
        account.wait("the witness", lambda: gone(scheduler, name, "witness"))
        assert state(account, launched.id) == "running"
        assert scheduler.get_schedule(GroupName=name, Name="end")["State"] == "ENABLED"
        clock("+4h")
        account.reach(launched.id, "terminated")
        account.wait("the schedule's end", lambda: gone(scheduler, name, "end"))
    finally:
        account.terminate(launched.id)
        scheduler.delete_schedule_group(Name=name)


def gone(scheduler: Any, group: str, name: str) -> bool | None:
    try:
        scheduler.get_schedule(GroupName=group, Name=name)
    except scheduler.exceptions.ResourceNotFoundException:
        return True
    return None


def test_a_role_that_may_not_terminate_ends_nothing(account: Any, scheduler: Any) -> None:
    iam, name = account.client("iam"), new("powerless")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "scheduler.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    launched = account.launch()
    try:
        scheduler.create_schedule_group(Name=name)
        scheduler.create_schedule(**schedule(account, name, launched.id, 0, RoleArn=role))
        account.wait("the schedule's end", lambda: gone(scheduler, name, "end"))
        assert state(account, launched.id) in ("pending", "running")
    finally:
        account.terminate(launched.id)
        scheduler.delete_schedule_group(Name=name)
        iam.delete_role(RoleName=name)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"RoleArn": "arn:aws:iam::123456789012:role/flux-rehearsal"},
            "must allow AWS EventBridge Scheduler",
        ),
        ({"RoleArn": "arn:aws:iam::123456789012:role/nobody"}, "must allow AWS EventBridge Scheduler"),
        ({"Arn": f"{ARN}runInstances"}, "Not in the local cloud: the target"),
        ({"Arn": "arn:aws:lambda:eu-north-1:123456789012:function:x"}, "Not in the local cloud: the target"),
        ({"Input": "{"}, "is not JSON"),
    ],
    ids=["role-of-ec2", "no-role", "another-call", "a-function", "no-json"],
)
def test_another_target_or_role_is_refused(
    account: Any, scheduler: Any, changes: dict[str, str], told: str
) -> None:
    asked = schedule(account, "default", "i-0123456789abcdef0", 1, **changes)
    with pytest.raises(ClientError, match="ValidationException") as error:
        scheduler.create_schedule(**asked)
    assert told in str(error.value)


@pytest.mark.parametrize("expression", ["rate(5 minutes)", "cron(0 10 * * ? *)", "at(2026-13-01T00:00:00)"])
def test_only_one_shot_schedules_are_there(account: Any, scheduler: Any, expression: str) -> None:
    asked = {**schedule(account, "default", "i-0", 1), "ScheduleExpression": expression}
    with pytest.raises(ClientError, match="one-shot"):
        scheduler.create_schedule(**asked)


def test_groups_are_known_by_their_names(scheduler: Any) -> None:
    name = new("bake")
    scheduler.create_schedule_group(Name=name)
    with pytest.raises(ClientError, match="ConflictException"):
        scheduler.create_schedule_group(Name=name)
    scheduler.delete_schedule_group(Name=name)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        scheduler.delete_schedule_group(Name=name)
