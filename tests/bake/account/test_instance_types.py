"""Instance types as EC2 tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bake.account.instance_types import ask_types, ask_zones

from ..instance_types import TYPES, ZONES

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


def test_the_types_that_plans_are_tested_with_are_ec2s(plan_cloud: PlanCloud) -> None:
    profile = plan_cloud.profile()
    names = {"instance_type": None, "instance_types": tuple(TYPES)}
    every = profile.model_copy(update={"builder": profile.builder.model_copy(update=names)})
    told = ask_types(every, plan_cloud.aws())
    assert {name: told[name] for name in TYPES} == TYPES
    assert ask_zones(every, plan_cloud.aws()) == ZONES
