"""Plans, made against moto's server: a real EC2 API over HTTP with real instance types."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import profile
from bake.agreement.facts import GUARDED
from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.planning.guarded import stated_facts
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text
from bake.planning.sources import Sources
from bake.request import ask_and_plan
from bake.weights import flux

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

PROFILES = Path(__file__).parents[3] / "profiles"

NAMES = profile.names(PROFILES)


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


def test_the_cache_is_in_the_home_of_the_systems_user(plan: Plan) -> None:
    assert plan.weights.cache == "/home/ubuntu/.cache/huggingface/hub"


def test_the_token_stands_in_no_form_of_the_plan(plan: Plan) -> None:
    shown = f"{as_text(plan)} {json.dumps(as_dict(plan))} {plan.provision.settings} {plan!r}"
    assert "hf_canary" not in shown


def test_the_text_is_complete_and_calm(plan: Plan) -> None:
    text = as_text(plan)
    for part in (
        f"base AMI     {plan.launch.base.id} ",
        "BASE_AMI_ID (environment)",
        "builder      g6e.xlarge in eu-north-1, on-demand",
        "g6e.xlarge: 4 vCPUs, 32,768 MiB, L40S with 45,776 MiB; 250 GB of instance store stay unused",
        "root volume  80 GiB gp3 ",
        "removed again, in about 0.4 h",
        "+ one AMI and its snapshot of 80 GiB",
        "✓ 80 GiB root volume: fits",
        "✓ g6e.xlarge in bf16: fits",
        "✓ g6e.xlarge is offered in eu-north-1b, the subnet's zone",
        "How this rehearsal differs from the real bake:\n  - a stand-in base",
    ):
        assert part in text
    assert "None" not in text
    # From the checkout's own folder, as users run it: its path may be of any length.
    near = text.replace(f"{PROFILES.parent}/", "")
    assert max(len(line) for line in near.splitlines()) <= 125


def test_each_value_shows_where_it_came_from(plan: Plan) -> None:
    text = as_text(plan)
    assert re.search(r"root volume  80 GiB gp3 +\S*profiles/g6e-ubuntu\.yaml:\d+$", text, re.M)
    assert re.search(r"private +default$", text, re.M)


def test_the_guarded_facts_are_all_there_and_resolved(plan: Plan, plan_account: PlanCloud) -> None:
    facts = {fact.name: fact for fact in plan.facts}
    assert list(facts) == list(GUARDED)
    assert facts["base_ami"].value == plan_account.variables["BASE_AMI_ID"]
    assert facts["instance_types"].value == ["g6e.xlarge"]
    assert facts["sharing"].value == []
    assert str(facts["vpc"].value).startswith("vpc-")
    assert facts["base_ami"].origin == "BASE_AMI_ID (environment)"
    stated = {fact.name: fact for fact in stated_facts(plan.profile, plan.origins)}
    assert stated == {name: fact for name, fact in facts.items() if name != "vpc"}


def test_the_json_holds_the_same(plan: Plan) -> None:
    told = json.loads(json.dumps(as_dict(plan)))
    assert told["disk"]["verdict"] == "fits"
    assert told["memory"][0]["needed"] == 37068
    assert told["facts"]["root_volume.size_gib"]["value"] == 80
    assert told["estimates"]["bake_dollars"] is None


def test_the_id_is_the_same_for_the_same_inputs_and_another_for_others(plan_cloud: PlanCloud) -> None:
    first = plan_cloud.plan().id
    assert plan_cloud.plan().id == first
    assert plan_cloud.plan(root_volume={"size_gib": 120}).id != first


def test_another_token_is_the_same_plan(plan_cloud: PlanCloud) -> None:
    other = profile.load("g6e-ubuntu", PROFILES, {**plan_cloud.variables, "HF_TOKEN": "hf_other"})
    assert ask_and_plan(other, plan_cloud.aws(), Sources(sizes=flux.SIZES)).id == plan_cloud.plan().id


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


def test_a_problem_names_the_place_that_it_came_from(plan_cloud: PlanCloud) -> None:
    variables = {**plan_cloud.variables, "BASE_AMI_ID": "ami-00000000000000000"}
    found, origins = profile.load_with_origins("g6e-ubuntu", PROFILES, variables)
    with pytest.raises(UsageError, match=r"^BASE_AMI_ID \(environment\): base\.ami: ami-0+ does not exist"):
        ask_and_plan(found, plan_cloud.aws(), Sources(sizes=flux.SIZES), origins)


VERDICTS = {
    "g6e-ubuntu": "fits",
    "g6e-amazon-linux": "fits",
    "g5-ubuntu": "tight",
    "g5-amazon-linux": "tight",
    "g6-ubuntu": "tight",
    "inf2-ubuntu": "refused",
    "inf2-amazon-linux": "refused",
}


def test_every_profile_has_a_verdict_here() -> None:
    assert set(VERDICTS) == set(NAMES)


@pytest.mark.parametrize(("name", "verdict"), VERDICTS.items(), ids=VERDICTS)
def test_every_profile_plans_with_the_right_verdict(plan_cloud: PlanCloud, name: str, verdict: str) -> None:
    if verdict == "refused":
        with pytest.raises(UsageError, match=r"does not fit inf2\.xlarge"):
            plan_cloud.plan(name)
        return
    plan = plan_cloud.plan(name)
    assert plan.verify.memory[0].verdict == verdict
    assert plan.unbakeable is None


def test_what_this_version_cannot_bake_is_said(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan(base={"accelerator": "cpu"}, builder={"instance_type": "r5.2xlarge"})
    why = "this version bakes cuda, and neuron in bf16, not cpu in bf16"
    assert plan.unbakeable == why
    assert f"not baked yet:\n  - {why}" in as_text(plan)


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
    # AMI, its snapshot, type, zones, subnet, group, instance profile, quota, prices.
    assert aws.tally.api_calls == 9


def test_a_rehearsal_refuses_any_other_address(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    aws.ec2.describe_regions()
    aws.endpoint = "http://127.0.0.1:9"  # as if a client had been made for elsewhere
    with pytest.raises(BakeError, match="may only talk to"):
        aws.ec2.describe_regions()


def test_elsewhere_is_refused_any_other_address_too(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    there = aws.elsewhere("eu-west-1")
    there.ec2.describe_regions()
    assert there.ec2.meta.region_name == "eu-west-1"
    aws.endpoint = "http://127.0.0.1:9"
    with pytest.raises(BakeError, match="may only talk to"):
        there.ec2.describe_regions()


def test_api_calls_are_counted(plan_cloud: PlanCloud) -> None:
    aws = Aws(region="eu-north-1", worker_region="eu-north-1", endpoint=plan_cloud.endpoint)
    aws.ec2.describe_regions()
    aws.sqs.list_queues()
    assert aws.tally.api_calls == 2


def test_plans_are_frozen(plan: Plan) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.id = "other"  # type: ignore[misc]
