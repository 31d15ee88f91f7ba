"""The preferences that are sent: for scarce GPUs, as a group says itself, and what AWS would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from bake.errors import UsageError
from bake.rollout import judge
from bake.rollout.groups import Group
from bake.rollout.preferences import ROLLING, ROOT_VOLUMES, Preferences

from .test_root_volumes import NEW, instance, target


def group(**told: Any) -> Group:
    return Group("workers", told)


def healthy(group: Group, strategy: Any = ROLLING, **asked: Any) -> tuple[Any, Any]:
    told = Preferences(**asked).request(group, strategy)
    return told.get("MinHealthyPercentage"), told.get("MaxHealthyPercentage")


def test_a_new_instance_comes_before_an_old_one_goes() -> None:
    assert healthy(group()) == (100, 110)
    assert healthy(group(), ROOT_VOLUMES) == (90, None)
    assert healthy(group(), min_healthy=50) == (50, 110)
    assert healthy(group(), min_healthy=0) == (0, None)  # AWS takes no range of 110
    assert healthy(group(), max_healthy=200) == (100, 200)


def test_a_maintenance_policy_of_the_group_holds_unless_asked_otherwise() -> None:
    own = group(InstanceMaintenancePolicy={"MinHealthyPercentage": 80, "MaxHealthyPercentage": 120})
    assert healthy(own) == (None, None)
    assert healthy(own, min_healthy=100) == (100, 110)
    none = group(InstanceMaintenancePolicy={"MinHealthyPercentage": -1, "MaxHealthyPercentage": -1})
    assert healthy(none) == (100, 110)


def test_a_hundred_is_the_last_checkpoint() -> None:
    told = Preferences(checkpoints=(10, 50), checkpoint_delay=60).request(group(), ROLLING)
    assert (told["CheckpointPercentages"], told["CheckpointDelay"]) == ([10, 50, 100], 60)
    assert Preferences(checkpoints=(100,)).request(group(), ROLLING)["CheckpointPercentages"] == [100]
    assert "CheckpointPercentages" not in Preferences().request(group(), ROLLING)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        pytest.param({"checkpoint_delay": 60}, "--checkpoint-delay is for checkpoints", id="delay"),
        pytest.param({"checkpoints": (50, 10)}, "ascending order", id="order"),
        pytest.param({"checkpoints": (50, 50)}, "once", id="twice"),
        pytest.param({"min_healthy": 50, "max_healthy": 151}, "no such range", id="range"),
    ],
)
def test_what_aws_would_refuse(asked: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Preferences(**asked).check()


def test_instances_that_are_left_alone_are_named() -> None:
    kept = {**instance("i-1"), "LifecycleState": "InService", "ProtectedFromScaleIn": True}
    aside = {**instance("i-2"), "LifecycleState": "Standby"}
    new = {**instance("i-3", "2", NEW), "LifecycleState": "InService"}
    found = group(DesiredCapacity=3, Instances=[kept, aside, new])
    said = list(judge.notes(found, target(), Preferences(), {}))
    assert said == [
        "i-1 is protected from scale-in: kept, with the old AMI (--protected refresh replaces it)",
        "i-2 is in Standby: kept, with the old AMI (--standby terminate replaces it)",
    ]
    chosen = Preferences(protected="Refresh", standby="Terminate")
    assert list(judge.notes(found, target(), chosen, {})) == []
    assert judge.counts(found, target(), chosen, ROLLING) == "3, to be replaced: 2"
    assert (
        judge.counts(found, target(), Preferences(), ROOT_VOLUMES) == "3, with root volumes to be replaced: 0"
    )
