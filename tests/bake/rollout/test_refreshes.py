"""Refreshes: started once, followed to their end, cancelled and rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bake.aws import ClientError
from bake.errors import BakeError
from bake.rollout import refreshes
from bake.rollout.refreshes import Refresh

from .fleet import Fleet

pytestmark = pytest.mark.integration
REASON = "Could not launch Spot Instances. UnfulfillableCapacity"


@pytest.fixture
def started(fleet: Fleet) -> Iterator[Refresh]:
    """A refresh that goes on until a test says otherwise."""
    fleet.group().served()
    yield refreshes.start(fleet.aws, fleet.plan(bake_time=3600).request)
    fleet.account.faults.clear()


def test_a_refresh_is_told_at_once(fleet: Fleet, started: Refresh) -> None:
    assert not started.ended
    found = refreshes.newest(fleet.aws, fleet.name)
    assert found is not None
    assert found.id == started.id == fleet.refreshes()[0]["InstanceRefreshId"]
    assert refreshes.active(fleet.aws, fleet.name) is not None


def test_each_change_of_it_is_told_until_its_end(fleet: Fleet, started: Refresh) -> None:
    said: list[str] = []
    steps: list[Any] = [
        (
            "InProgress",
            {"PercentageComplete": 33, "InstancesToUpdate": 2, "StatusReason": "Waiting  for\nit"},
        ),
        ("RollbackInProgress", {"PercentageComplete": 20, "StatusReason": REASON}),
        ("RollbackSuccessful", {"PercentageComplete": 0}),
    ]

    def say(text: str) -> None:
        said.append(text)
        if steps:
            status, told = steps.pop(0)
            fleet.tell(status, **told)

    fleet.tell("InProgress", PercentageComplete=0, InstancesToUpdate=3)
    end = refreshes.follow(fleet.aws, fleet.name, started, say)
    assert (end.status, end.reason, end.as_dict()["percentage"]) == ("RollbackSuccessful", REASON, 0)
    first = fleet.refreshes()[0]["StartTime"]
    since = f" since {first:%Y-%m-%dT%H:%M:%SZ}"
    assert said == [
        f"{fleet.name}: InProgress, 0 %, 3 instances left{since}",
        f"{fleet.name}: InProgress, 33 %, 2 instances left{since}: Waiting for it",
        f"{fleet.name}: RollbackInProgress, 20 %, 2 instances left{since}: {REASON}",
        f"{fleet.name}: RollbackSuccessful, 0 %: {REASON}",
    ]


def test_a_refresh_whose_answer_was_lost_is_started_once(fleet: Fleet) -> None:
    fleet.group().served()
    fleet.account.faults.plant("autoscaling", "StartInstanceRefresh", "lost")
    found = refreshes.start(fleet.aws, fleet.plan(bake_time=3600).request)
    assert [one["InstanceRefreshId"] for one in fleet.refreshes()] == [found.id]


def test_another_refresh_is_not_taken_for_it(fleet: Fleet, started: Refresh) -> None:
    request = {
        "AutoScalingGroupName": fleet.name,
        "Strategy": "Rolling",
        "DesiredConfiguration": {"LaunchTemplate": fleet.spec("1")},
    }
    with pytest.raises(ClientError, match="InstanceRefreshInProgress"):
        refreshes.start(fleet.aws, request)


def test_cancelling_leaves_the_group_as_it_was(fleet: Fleet, started: Refresh) -> None:
    found = refreshes.cancel(fleet.aws, fleet.name)
    end = refreshes.follow(fleet.aws, fleet.name, found, lambda _: None)
    assert (end.id, end.status) == (started.id, "Cancelled")
    spec = fleet.told()["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]
    assert spec["Version"] == "1"
    with pytest.raises(
        BakeError, match=f"no refresh of {fleet.name} goes on; the last one, {started.id}, is Canc"
    ):
        refreshes.cancel(fleet.aws, fleet.name)


def test_rolling_back_ends_as_such(fleet: Fleet, started: Refresh) -> None:
    found = refreshes.roll_back(fleet.aws, fleet.name)
    assert refreshes.follow(fleet.aws, fleet.name, found, lambda _: None).status == "RollbackSuccessful"


def test_what_can_not_be_rolled_back_says_to_cancel(fleet: Fleet) -> None:
    fleet.group(**fleet.mixed("$Default")).served()
    refreshes.start(fleet.aws, fleet.plan(rollback=False, bake_time=3600).request)
    with pytest.raises(BakeError, match="can't roll the refresh") as error:
        refreshes.roll_back(fleet.aws, fleet.name)
    assert "--cancel" in str(error.value.hint)


def test_a_group_that_never_had_one(fleet: Fleet) -> None:
    fleet.group()
    assert refreshes.newest(fleet.aws, fleet.name) is None
    with pytest.raises(BakeError, match="it has had none in six weeks"):
        refreshes.roll_back(fleet.aws, fleet.name)
