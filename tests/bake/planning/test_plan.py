"""A plan as a whole: its facts, its text, its JSON, its id, and a verdict for each profile."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from bake import profile
from bake.agreement.facts import GUARDED, OF_FLEET
from bake.errors import UsageError
from bake.planning.guarded import stated_facts
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text
from bake.planning.sources import Sources
from bake.weights import flux

from .conftest import Account

PROFILES = Path(__file__).parents[3] / "profiles"

NAMES = profile.names(PROFILES)


@pytest.fixture
def plan(account: Account) -> Plan:
    found, origins = profile.load_with_origins("g6e-ubuntu", PROFILES, account.variables)
    sources = Sources(sizes=flux.SIZES, differences=("a stand-in base",))
    return account.decide(found, sources, origins)


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


def test_the_guarded_facts_are_all_there_and_resolved(plan: Plan, account: Account) -> None:
    facts = {fact.name: fact for fact in plan.facts}
    assert [*facts, *OF_FLEET] == list(GUARDED)
    assert facts["base_ami"].value == account.variables["BASE_AMI_ID"]
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


def test_the_id_is_the_same_for_the_same_inputs_and_another_for_others(account: Account) -> None:
    first = account.plan().id
    assert account.plan().id == first
    assert account.plan(root_volume={"size_gib": 120}).id != first


def test_another_token_is_the_same_plan(account: Account) -> None:
    other = profile.load("g6e-ubuntu", PROFILES, {**account.variables, "HF_TOKEN": "hf_other"})
    assert account.decide(other, Sources(sizes=flux.SIZES)).id == account.plan().id


def test_a_problem_names_the_place_that_it_came_from(account: Account) -> None:
    variables = {**account.variables, "BASE_AMI_ID": "ami-00000000000000000"}
    found, origins = profile.load_with_origins("g6e-ubuntu", PROFILES, variables)
    with pytest.raises(UsageError, match=r"^BASE_AMI_ID \(environment\): base\.ami: ami-0+ does not exist"):
        account.decide(found, Sources(sizes=flux.SIZES), origins)


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
def test_every_profile_plans_with_the_right_verdict(account: Account, name: str, verdict: str) -> None:
    if verdict == "refused":
        with pytest.raises(UsageError, match=r"does not fit inf2\.xlarge"):
            account.plan(name)
        return
    plan = account.plan(name)
    assert plan.verify.memory[0].verdict == verdict
    assert plan.unbakeable is None


def test_what_this_version_cannot_bake_is_said(account: Account) -> None:
    plan = account.plan(base={"accelerator": "cpu"}, builder={"instance_type": "r5.2xlarge"})
    why = "this version bakes cuda, and neuron in bf16, not cpu in bf16"
    assert plan.unbakeable == why
    assert f"not baked yet:\n  - {why}" in as_text(plan)


def test_plans_are_frozen(plan: Plan) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.id = "other"  # type: ignore[misc]
