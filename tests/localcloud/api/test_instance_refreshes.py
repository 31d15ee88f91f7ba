"""Instance refreshes of groups without instances: their states, AWS's refusals, what a group has then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.localcloud.recorded_cloud import BASE, OTHER

from .conftest import Account, refusal, wait
from .test_auto_scaling import described, group, template

pytestmark = pytest.mark.integration

UNKNOWN = "lt-0123456789abcdef0"


class Fleet:
    """A group of a template with two versions, the first of which it launches."""

    def __init__(self, account: Account, image: str = BASE, mixed: bool = True, **changes: Any) -> None:
        self.account, self.scaling = account, account.client("autoscaling")
        self.template = template(account, image)
        self.version(ImageId=OTHER)
        self.name = group(
            account, **(self.policy("1", ImageId=BASE) if mixed else self.plain("1")), **changes
        )

    def version(self, **data: str) -> int:
        made = self.account.client("ec2").create_launch_template_version(
            LaunchTemplateId=self.template, SourceVersion="1", LaunchTemplateData=data
        )
        return int(made["LaunchTemplateVersion"]["VersionNumber"])

    def plain(self, version: str) -> Any:
        return {"LaunchTemplate": {"LaunchTemplateId": self.template, "Version": version}}

    def policy(self, version: str, **override: str) -> Any:
        mixed = {
            "LaunchTemplateSpecification": {"LaunchTemplateId": self.template, "Version": version},
            "Overrides": [{"InstanceType": one, **override} for one in ("g6e.xlarge", "g6e.2xlarge")],
        }
        return {"MixedInstancesPolicy": {"LaunchTemplate": mixed}}

    def start(self, desired: Any, **asked: Any) -> str:
        made = self.scaling.start_instance_refresh(
            AutoScalingGroupName=self.name, DesiredConfiguration=desired, **asked
        )
        return str(made["InstanceRefreshId"])

    def refused(self, desired: Any, **asked: Any) -> tuple[str, int]:
        given = {"DesiredConfiguration": desired} if desired is not None else {}
        return refusal(self.scaling.start_instance_refresh, AutoScalingGroupName=self.name, **given, **asked)

    def refreshes(self, **asked: Any) -> list[Any]:
        told = self.scaling.describe_instance_refreshes(AutoScalingGroupName=self.name, **asked)
        return list(told["InstanceRefreshes"])

    def reach(self, status: str) -> Any:
        wait(lambda: self.refreshes()[0]["Status"] == status)
        return self.refreshes()[0]


def test_a_refresh_that_succeeds_gives_the_group_what_was_desired(served: Account) -> None:
    fleet = Fleet(served)
    started = fleet.start(fleet.policy("2", ImageId=OTHER), Preferences={"AutoRollback": True})
    first = fleet.refreshes()[0]
    assert (first["InstanceRefreshId"], first["Status"], first["Strategy"]) == (started, "Pending", "Rolling")
    assert first["Preferences"] == {"AutoRollback": True}
    done = fleet.reach("Successful")
    assert (done["PercentageComplete"], done["InstancesToUpdate"]) == (100, 0)
    assert done["StartTime"] < done["EndTime"]
    mixed = described(fleet.scaling, fleet.name)["MixedInstancesPolicy"]["LaunchTemplate"]
    assert mixed["LaunchTemplateSpecification"]["Version"] == "2"
    assert [one["ImageId"] for one in mixed["Overrides"]] == [OTHER, OTHER]


def test_a_group_of_a_plain_template_gets_its_version_too(served: Account) -> None:
    fleet = Fleet(served, mixed=False)
    fleet.start(fleet.plain("2"))
    fleet.reach("Successful")
    found = described(fleet.scaling, fleet.name)
    assert found["LaunchTemplate"]["Version"] == "2"
    assert "MixedInstancesPolicy" not in found


def test_one_refresh_at_a_time_and_no_update_of_what_it_changes(served: Account) -> None:
    fleet = Fleet(served)
    desired = fleet.policy("2", ImageId=OTHER)
    fleet.start(desired, Preferences={"BakeTime": 3600})
    assert fleet.refused(desired) == ("InstanceRefreshInProgress", 400)
    update = fleet.scaling.update_auto_scaling_group
    assert refusal(update, AutoScalingGroupName=fleet.name, **desired) == ("ValidationError", 400)
    update(AutoScalingGroupName=fleet.name, MaxSize=9)
    fleet.reach("Baking")
    assert fleet.refused(desired) == ("InstanceRefreshInProgress", 400)


def test_a_refresh_that_is_cancelled_leaves_the_group_as_it_was(served: Account) -> None:
    fleet = Fleet(served)
    started = fleet.start(fleet.policy("2", ImageId=OTHER), Preferences={"BakeTime": 3600})
    cancelled = fleet.scaling.cancel_instance_refresh(AutoScalingGroupName=fleet.name)
    assert (cancelled["InstanceRefreshId"], fleet.refreshes()[0]["Status"]) == (started, "Cancelling")
    done = fleet.reach("Cancelled")
    assert done["StatusReason"] == "Cancelled due to user request."
    mixed = described(fleet.scaling, fleet.name)["MixedInstancesPolicy"]["LaunchTemplate"]
    assert mixed["LaunchTemplateSpecification"]["Version"] == "1"
    for call in (fleet.scaling.cancel_instance_refresh, fleet.scaling.rollback_instance_refresh):
        assert refusal(call, AutoScalingGroupName=fleet.name) == ("ActiveInstanceRefreshNotFound", 400)


def test_a_refresh_is_rolled_back_where_it_can_be(served: Account) -> None:
    fleet = Fleet(served)
    fleet.start(fleet.policy("2", ImageId=OTHER), Preferences={"BakeTime": 3600})
    fleet.scaling.rollback_instance_refresh(AutoScalingGroupName=fleet.name)
    assert fleet.refreshes()[0]["RollbackDetails"]["PercentageCompleteOnRollback"] == 0
    fleet.reach("RollbackSuccessful")
    fleet.start(fleet.policy("$Latest", ImageId=OTHER), Preferences={"BakeTime": 3600})
    refused = refusal(fleet.scaling.rollback_instance_refresh, AutoScalingGroupName=fleet.name)
    assert refused == ("IrreversibleInstanceRefresh", 400)


def test_refreshes_come_newest_first_and_in_pages(served: Account) -> None:
    fleet = Fleet(served)
    made = []
    for _ in range(2):
        made.insert(0, fleet.start(fleet.policy("1", ImageId=BASE)))
        fleet.scaling.cancel_instance_refresh(AutoScalingGroupName=fleet.name)
        fleet.reach("Cancelled")
    assert [one["InstanceRefreshId"] for one in fleet.refreshes()] == made
    assert [one["InstanceRefreshId"] for one in fleet.refreshes(InstanceRefreshIds=made[1:])] == made[1:]
    ask = fleet.scaling.describe_instance_refreshes
    page = ask(AutoScalingGroupName=fleet.name, MaxRecords=1)
    rest = ask(AutoScalingGroupName=fleet.name, NextToken=page["NextToken"])
    told = [*page["InstanceRefreshes"], *rest["InstanceRefreshes"]]
    assert [one["InstanceRefreshId"] for one in told] == made
    assert "NextToken" not in rest
    assert refusal(ask, AutoScalingGroupName=fleet.name, NextToken="x") == ("InvalidNextToken", 400)
    assert refusal(ask, AutoScalingGroupName=fleet.name, MaxRecords=101) == ("ValidationError", 400)


@pytest.mark.parametrize(
    "preferences",
    [
        pytest.param({"MinHealthyPercentage": 101}, id="least-healthy"),
        pytest.param({"MinHealthyPercentage": 90, "MaxHealthyPercentage": 99}, id="most-healthy"),
        pytest.param({"MaxHealthyPercentage": 110}, id="most-without-least"),
        pytest.param({"MinHealthyPercentage": 10, "MaxHealthyPercentage": 150}, id="range"),
        pytest.param({"BakeTime": 172_801}, id="bake-time"),
        pytest.param({"CheckpointDelay": 60}, id="delay-without-checkpoints"),
        pytest.param({"CheckpointPercentages": [50, 20]}, id="order"),
        pytest.param({"CheckpointPercentages": [50, 50]}, id="twice"),
        pytest.param({"CheckpointPercentages": [50, 101]}, id="too-much"),
        pytest.param({"ScaleInProtectedInstances": "Terminate"}, id="protected"),
        pytest.param({"StandbyInstances": "Refresh"}, id="standby"),
    ],
)
def test_preferences_that_are_refused(served: Account, preferences: Any) -> None:
    fleet = Fleet(served)
    assert fleet.refused(fleet.policy("2", ImageId=OTHER), Preferences=preferences) == (
        "ValidationError",
        400,
    )
    assert fleet.refreshes() == []


def test_an_automatic_rollback_needs_numbers_and_ids(served: Account) -> None:
    fleet, rolled = Fleet(served), {"Preferences": {"AutoRollback": True}}
    assert fleet.refused(None, **rolled) == ("ValidationError", 400)
    for version in ("$Latest", "$Default"):
        assert fleet.refused(fleet.policy(version, ImageId=OTHER), **rolled) == ("ValidationError", 400)
    by_parameter = fleet.version(ImageId="resolve:ssm:/flux/stable")
    assert fleet.refused(fleet.policy(str(by_parameter)), **rolled) == ("ValidationError", 400)
    fleet.scaling.update_auto_scaling_group(AutoScalingGroupName=fleet.name, **fleet.policy("$Default"))
    assert fleet.refused(fleet.policy("2"), **rolled) == ("ValidationError", 400)
    fleet.start(fleet.policy("2"))


def test_root_volumes_are_replaced_where_each_override_has_an_ami(served: Account) -> None:
    fleet, strategy = Fleet(served), {"Strategy": "ReplaceRootVolume"}
    assert fleet.refused(fleet.plain("2"), **strategy) == ("ValidationError", 400)
    assert fleet.refused(fleet.policy("2"), **strategy) == ("ValidationError", 400)
    assert fleet.refused(fleet.policy("2", ImageId="ami-0fedcba9"), **strategy) == ("ValidationError", 400)
    fleet.start(fleet.policy("1", ImageId=OTHER), **strategy)
    assert fleet.refreshes()[0]["Strategy"] == "ReplaceRootVolume"
    plain = Fleet(served, mixed=False)
    assert plain.refused(plain.policy("2", ImageId=OTHER), **strategy) == ("ValidationError", 400)


def test_what_is_not_there_is_refused(served: Account) -> None:
    fleet = Fleet(served)
    assert fleet.refused(fleet.policy("9")) == ("ValidationError", 400)
    wrong: Any = {"LaunchTemplate": {"LaunchTemplateId": UNKNOWN, "Version": "1"}}
    assert fleet.refused(wrong) == ("ValidationError", 400)
    assert fleet.refused({**fleet.plain("1"), **fleet.policy("1")}) == ("ValidationError", 400)
    assert fleet.refused(fleet.policy("1"), Strategy="Canary") == ("ValidationError", 400)
    for operation in ("start", "cancel", "rollback"):
        call = getattr(fleet.scaling, f"{operation}_instance_refresh")
        assert refusal(call, AutoScalingGroupName="none such") == ("ValidationError", 400)
    ask = fleet.scaling.describe_instance_refreshes
    assert refusal(ask, AutoScalingGroupName="none such") == ("ValidationError", 400)


def test_processes_are_suspended_and_resumed(served: Account) -> None:
    fleet = Fleet(served)
    named = {"AutoScalingGroupName": fleet.name, "ScalingProcesses": ["Launch"]}
    fleet.scaling.suspend_processes(**named)
    told = described(fleet.scaling, fleet.name)["SuspendedProcesses"]
    assert [one["ProcessName"] for one in told] == ["Launch"]
    fleet.scaling.resume_processes(**named)
    assert described(fleet.scaling, fleet.name)["SuspendedProcesses"] == []
    missing = {**named, "AutoScalingGroupName": "none such"}
    for call in (fleet.scaling.suspend_processes, fleet.scaling.resume_processes):
        assert refusal(call, **missing) == ("ValidationError", 400)
