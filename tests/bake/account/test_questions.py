"""What a plan asks: calls, what is not there, and that nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import profile
from bake.errors import UsageError
from bake.planning.plan import Plan
from bake.planning.sources import Sources
from bake.request import ask_and_plan
from bake.weights import flux

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

PROFILES = Path(__file__).parents[3] / "profiles"


@pytest.fixture(scope="module")
def plan(plan_account: PlanCloud) -> Plan:
    found, origins = profile.load_with_origins("g6e-ubuntu", PROFILES, plan_account.variables)
    sources = Sources(sizes=flux.SIZES, differences=("a stand-in base",))
    return ask_and_plan(found, plan_account.aws(), sources, origins)


def test_hardware_is_what_the_api_says(plan: Plan) -> None:
    kind = plan.launch.types[0]
    assert kind.device is not None
    assert (kind.device.name, kind.device.count, kind.device.memory_mib) == ("L40S", 1, 45776)
    assert (kind.memory_mib, kind.instance_store_gb, kind.ebs_baseline) == (32768, 250, 125.0)


def test_everything_that_does_not_fit_comes_in_one_message(plan_cloud: PlanCloud) -> None:
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan(
            base={"ami": "ami-00000000000000000"},
            builder={
                "instance_type": "g6e.tiny",
                "subnet": "subnet-00000000",
                "security_group": "sg-00000000",
                "instance_profile": "nobody",
            },
            worker={"bus": "nowhere"},
        )
    assert caught.value.message.splitlines() == [
        "base.ami: ami-00000000000000000 does not exist in eu-north-1, or is not shared with this account",
        "builder.instance_type: g6e.tiny is not offered in eu-north-1",
        "builder.subnet: subnet-00000000 does not exist in eu-north-1",
        "builder.security_group: sg-00000000 does not exist in eu-north-1",
        "builder.instance_profile: there is no instance profile nobody in this account",
        "worker.bus: there is no event bus nowhere in eu-west-1",
    ]
    assert caught.value.exit_code == 2


def test_the_bucket_of_reports_is_looked_for(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    found = plan_cloud.profile().model_copy(update={"reports": "s3://kept-reports/flux"})
    sources = Sources(sizes=flux.SIZES)
    with pytest.raises(UsageError, match=r"^reports: there is no bucket kept-reports$"):
        ask_and_plan(found, aws, sources)
    where: Any = {"LocationConstraint": "eu-west-1"}
    aws.s3.create_bucket(Bucket="kept-reports", CreateBucketConfiguration=where)
    assert "the reports' bucket kept-reports is in eu-west-1" in ask_and_plan(found, aws, sources).checked


def test_planning_changes_nothing(plan_cloud: PlanCloud) -> None:
    ec2 = plan_cloud.aws().ec2

    def state() -> Any:
        return (
            ec2.describe_instances()["Reservations"],
            ec2.describe_key_pairs()["KeyPairs"],
            ec2.describe_security_groups()["SecurityGroups"],
            ec2.describe_volumes()["Volumes"],
        )

    before = state()
    plan_cloud.plan()
    assert state() == before


def test_one_question_is_one_call(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    ask_and_plan(plan_cloud.profile(), aws, Sources(sizes=flux.SIZES))
    # AMI, its snapshot, type, zones, subnet, group, instance profile, quota, prices, earlier images; and of
    # the preflight the launch, two route tables, endpoints, who calls, and the worker's rights, which moto
    # does not tell.
    assert aws.tally.api_calls == 10 + 6
