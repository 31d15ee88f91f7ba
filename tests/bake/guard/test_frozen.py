"""Profiles and lock files of today go on working, unedited: they load, plan, and are as agreed.

`tests/rehearsal` bakes from them: its `baked` is a whole bake of a frozen profile with a frozen lock file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake import profile
from bake.agreement import facts, lockfile
from bake.agreement.facts import Agreement, Fact, FactValue, Guarded, compare
from bake.errors import UsageError
from bake.planning.plan import Plan
from bake.planning.sources import Sources
from bake.request import ask_and_plan
from bake.weights import flux

from ..variables import VARIABLES
from . import frozen

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

NAMES = ["g5-amazon-linux", "g5-ubuntu", "g6-ubuntu", "g6e-amazon-linux", "g6e-ubuntu"]
FRIENDS = {"BASE_AMI_ID_AMAZON_LINUX", "BASE_AMI_ID_NEURON", "BASE_AMI_ID_NEURON_AMAZON_LINUX"}


@pytest.mark.parametrize("name", profile.names(frozen.PROFILES))
def test_a_frozen_profile_loads(name: str) -> None:
    variables = {**VARIABLES, **dict.fromkeys(FRIENDS, VARIABLES["BASE_AMI_ID"])}
    variables |= {"BAKE_SSH_FROM": "203.0.113.7/32", "BAKE_KMS_KEY": "alias/flux", "FRIEND": "210987654321"}
    variables |= {"NEURON_REPOSITORY": "https://apt.example", "NVIDIA_REPOSITORY": "https://cuda.example"}
    assert profile.load(name, frozen.PROFILES, variables).name == name


def planned(cloud: PlanCloud, name: str) -> Plan:
    found, origins = profile.load_with_origins(name, frozen.PROFILES, cloud.variables)
    return ask_and_plan(found, cloud.aws(), Sources(sizes=flux.SIZES), origins)


def agreement(cloud: PlanCloud, guarded: Guarded, name: str, folder: Path) -> Agreement:
    """What the frozen lock file of a profile says."""
    now = {fact: value for fact, value, _ in guarded.rows()}
    file = folder / f"{name}.lock.yaml"
    values = {**cloud.variables, "VPC_ID": str(now["vpc"]), "WORKER_LOCK": str(now["worker.lock"])}
    file.write_text(frozen.lock("aws", name, values), encoding="utf-8")
    held = lockfile.read(file)
    assert held.agreement is not None
    assert held.weights is not None
    return held.agreement


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_profile_is_as_agreed_in_its_frozen_lock(
    plan_cloud: PlanCloud, tmp_path: Path, name: str
) -> None:
    guarded = planned(plan_cloud, name).guarded
    assert compare(guarded, agreement(plan_cloud, guarded, name, tmp_path)) == []


@pytest.mark.parametrize("name", ["inf2-amazon-linux", "inf2-ubuntu"])
def test_a_frozen_profile_that_did_not_fit_is_refused_for_that_alone(
    plan_cloud: PlanCloud, name: str
) -> None:
    with pytest.raises(UsageError, match=r"does not fit inf2\.xlarge") as caught:
        planned(plan_cloud, name)
    assert len([line for line in caught.value.message.splitlines() if line[0] != " "]) == 1


@pytest.mark.parametrize("name", ["g5-ubuntu", "g6e-ubuntu"])
def test_a_frozen_lock_with_hashes_is_read(tmp_path: Path, name: str) -> None:
    values = dict.fromkeys(("VPC_ID", "BAKE_SUBNET_ID", "BAKE_SECURITY_GROUP_ID", "BASE_AMI_ID"), "x")
    file = tmp_path / f"{name}.lock.yaml"
    file.write_text(frozen.lock("rehearsal", name, {**values, "WORKER_LOCK": "sha256:x"}), encoding="utf-8")
    held = lockfile.read(file)
    assert held.weights is not None
    assert (held.weights.complete, len(held.weights.files)) == (True, 21)


# --- facts to come ------------------------------------------------------------------------------


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> Iterator[FactValue]:
    """A guarded fact that no lock file of today knows; its value where the feature is not used."""
    monkeypatch.setitem(facts.OFF, "yet_to_come", None)
    yield None


def with_fact(guarded: Guarded, value: FactValue) -> Guarded:
    return Guarded((*guarded.facts, Fact("yet_to_come", value, "profiles/x.yaml:7")), guarded.pins)


def test_a_new_fact_whose_feature_is_off_counts_as_agreed(
    plan_cloud: PlanCloud, tmp_path: Path, off: FactValue
) -> None:
    guarded = planned(plan_cloud, "g6e-ubuntu").guarded
    held = agreement(plan_cloud, guarded, "g6e-ubuntu", tmp_path)
    assert compare(with_fact(guarded, off), held) == []
    (one,) = compare(with_fact(guarded, "used"), held)
    assert (one.name, one.now, one.new) == ("yet_to_come", "used", True)


def test_a_first_agreement_names_it_too(plan_cloud: PlanCloud, off: FactValue) -> None:
    guarded = with_fact(planned(plan_cloud, "g6e-ubuntu").guarded, off)
    assert "yet_to_come" in [one.name for one in compare(guarded, None)]


def test_what_was_agreed_is_not_off_by_itself(plan_cloud: PlanCloud, tmp_path: Path, off: FactValue) -> None:
    """Who agreed to a feature is asked when it goes."""
    guarded = planned(plan_cloud, "g6e-ubuntu").guarded
    held = agreement(plan_cloud, guarded, "g6e-ubuntu", tmp_path)
    used = Agreement(held.file, {**held.agreed, "yet_to_come": "used"}, held.history)
    (one,) = compare(with_fact(guarded, off), used)
    assert (one.agreed, one.now, one.new) == ("used", None, False)


def test_a_lock_file_from_before_worker_instance_types_is_as_agreed(
    plan_cloud: PlanCloud, tmp_path: Path
) -> None:
    guarded = planned(plan_cloud, "g6e-ubuntu").guarded
    held = agreement(plan_cloud, guarded, "g6e-ubuntu", tmp_path)
    older = {name: value for name, value in held.agreed.items() if name != "worker_instance_types"}
    assert compare(guarded, Agreement(held.file, older, held.history)) == []


def test_each_fact_that_may_be_off_is_a_guarded_one() -> None:
    assert set(facts.OFF) <= set(facts.GUARDED)
