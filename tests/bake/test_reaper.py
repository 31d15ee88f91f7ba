"""A schedule that ends an instance which hangs: made before the launch, moved with the lease, removed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from bake.creation import stamp, tag_of
from bake.errors import BakeError
from bake.lease import Lease
from bake.lifecycle import inventory
from bake.reaper import AFTER, CANCEL, TERMINATE, Reaper
from bake.undo import Undo
from tests.bake.one_run import REAPER, OneRun


def test_it_is_armed_for_the_end_of_the_lease_and_goes_with_the_bake(one_run: OneRun) -> None:
    with Undo() as undo:
        builder = one_run.launch_with_reaper(undo)
        [(name, found)] = one_run.schedules().items()
        assert name == f"bake-{one_run.run.id}-builder/{TERMINATE}"
        assert found["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
        assert found["Target"]["RoleArn"] == REAPER
        assert json.loads(found["Target"]["Input"]) == {"InstanceIds": [builder.id]}
        assert (found["State"], found["ActionAfterCompletion"]) == ("ENABLED", "DELETE")
        assert found["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert found["ScheduleExpressionTimezone"] == "UTC"
        late = due(found) - one_run.aws.now() - one_run.plan.lease
        assert AFTER < late <= AFTER + timedelta(minutes=1)
        held = inventory.take(one_run.aws, prices=False).of(one_run.run.id)
        [group] = [one for one in held if one.kind == "schedule group"]
        assert (group.state, group.expires is not None) == ("draft", True)
    assert one_run.left() == []


def due(found: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(found["ScheduleExpression"][3:-1] + "+00:00")


def test_a_renewal_moves_it_and_the_expiry_of_its_group(one_run: OneRun) -> None:
    with Undo() as undo:
        builder = one_run.launch_with_reaper(undo)
        before = [due(found) for found in one_run.schedules().values()]
        lease = Lease(timedelta(days=30), one_run.aws, one_run.run)
        lease._tally.moved("a step")
        lease._renew()
        [(name, found)] = one_run.schedules().items()
        assert due(found) > before[0] + timedelta(days=20)
        assert (found["State"], found["ActionAfterCompletion"]) == ("ENABLED", "DELETE")
        assert json.loads(found["Target"]["Input"]) == {"InstanceIds": [builder.id]}
        scheduler = one_run.witness.scheduler
        arn = scheduler.get_schedule_group(Name=name.partition("/")[0])["Arn"]
        told = tag_of(scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"], "bake:expires")
        assert told == stamp(due(found) - AFTER - timedelta(minutes=1))
        undo.now()
        lease._tally.moved("another step")
        lease._renew()  # what is gone is renewed no more
        assert not one_run.run.renewals
    assert one_run.left() == []


@pytest.mark.parametrize("action", ["CreateScheduleGroup", "CreateSchedule"])
def test_what_scheduler_refuses_is_refused_before_a_launch(one_run: OneRun, action: str) -> None:
    told = "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
    one_run.fault(action, "refuse", code="ValidationException", message=told)
    called: list[str] = []
    one_run.aws.ec2.meta.events.register(
        "before-call.ec2.RunInstances", lambda model, **_: called.append(model.name)
    )
    with pytest.raises(BakeError, match="ValidationException: The execution role") as error, Undo() as undo:
        one_run.launch_with_reaper(undo)
    assert "nothing was launched; docs/aws.md" in str(error.value.hint)
    assert called == []
    assert one_run.left() == []


def test_one_that_can_not_be_armed_ends_the_launch(one_run: OneRun) -> None:
    one_run.fault("UpdateSchedule", "refuse", code="AccessDeniedException", status=403, times=None)
    with pytest.raises(Exception, match="AccessDenied"), Undo() as undo:
        one_run.launch_with_reaper(undo)
    assert one_run.left() == []


def test_the_request_of_a_spot_instance_is_cancelled_first(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A persistent request would replace what the schedule ends."""
    facts = {"SpotInstanceRequestId": "sir-12345678"}
    monkeypatch.setattr("bake.reaper.describe", lambda aws, instance: facts)
    with Undo() as undo:
        one_run.launch_with_reaper(undo)
        found = {name.partition("/")[2]: one for name, one in one_run.schedules().items()}
        assert json.loads(found[CANCEL]["Target"]["Input"]) == {"SpotInstanceRequestIds": ["sir-12345678"]}
        assert found[CANCEL]["Target"]["Arn"].endswith(":aws-sdk:ec2:cancelSpotInstanceRequests")
        assert due(found[CANCEL]) == due(found[TERMINATE]) - timedelta(minutes=1)
        again = Reaper(one_run.aws, f"bake-{one_run.run.id}-builder", REAPER)  # as a resumed run does
        again.arm("i-0123456789abcdef0", one_run.aws.now() + timedelta(days=9))
        found = {name.partition("/")[2]: one for name, one in one_run.schedules().items()}
        assert {due(one) > one_run.aws.now() + timedelta(days=8) for one in found.values()} == {True}
    assert one_run.left() == []
