"""The account that plans are tested in: what goes wrong with its calls."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from bake.aws import error_code

from .conftest import PlanCloud


def test_the_bakes_clients_outlast_what_passes(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("sts", "GetCallerIdentity", "throttle")
    assert plan_cloud.aws().sts.get_caller_identity()["Account"]
    assert plan_cloud.faults.struck() == 1


def test_what_does_not_pass_reaches_them(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("sts", "*", "refuse")
    with pytest.raises(ClientError) as error:
        plan_cloud.aws().sts.get_caller_identity()
    assert error_code(error.value) == "AccessDenied"
