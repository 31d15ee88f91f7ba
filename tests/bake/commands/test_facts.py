"""What a report says of who bakes what, where, and with whose agreement."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake.agreement.facts import Agreement, Entry, compare
from bake.commands.facts import agreement, identity
from bake.planning.plan import Plan
from bake.request import BakeRequest, Proposal

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

FIRST = Entry("2026-11-01T10:00:00Z", "operator@example.com", "first", {"region": {"to": "eu-north-1"}})
LARGER = Entry(
    "2026-11-02T10:00:00Z", "operator@example.com", "room", {"root_volume.size_gib": {"from": 80, "to": 120}}
)


@pytest.fixture
def proposal(plan_cloud: PlanCloud, one_plan: Plan, tmp_path: Path) -> Proposal:
    request = BakeRequest("g6e-ubuntu", tmp_path, tmp_path / ".env")
    return Proposal(request, one_plan, plan_cloud.aws(), one_plan.guarded, None, [], None, None)


def agreed(proposal: Proposal, file: Path, **other: object) -> Proposal:
    """The proposal with everything agreed but `other`."""
    values = {name: value for name, value, _ in proposal.guarded.rows()}
    held = Agreement(file, {**values, **other}, (FIRST, LARGER))  # type: ignore[arg-type]
    return dataclasses.replace(proposal, agreement=held, differences=compare(proposal.guarded, held))


def test_the_caller_is_named_as_aws_names_it(proposal: Proposal) -> None:
    told = identity(proposal)
    assert (told["account"], told["venue"], told["differences"]) == ("123456789012", "AWS", [])
    assert told["operator"].startswith("arn:aws:")


def test_a_rehearsal_says_how_it_differs(proposal: Proposal) -> None:
    sources = dataclasses.replace(proposal.plan.sources, differences=("x",))
    plan = dataclasses.replace(proposal.plan, sources=sources)
    told = identity(dataclasses.replace(proposal, plan=plan))
    assert told["venue"] == "REHEARSAL"
    assert len(told["differences"]) >= 5


def test_an_account_that_does_not_answer_costs_its_facts_alone(
    proposal: Proposal, plan_cloud: PlanCloud
) -> None:
    from bake.localcloud.api.faults.faults import AwsFault

    plan_cloud.faults.add(AwsFault(service="*", action="GetCallerIdentity", kind="refuse", times=None))
    try:
        told = identity(proposal)
    finally:
        plan_cloud.faults.clear()
    assert (told["account"], told["operator"]) == (None, None)
    assert told["region"] == proposal.plan.profile.builder.region


def test_each_fact_says_whether_it_is_agreed(proposal: Proposal, tmp_path: Path) -> None:
    told = agreement(agreed(proposal, tmp_path / "x.lock.yaml", market="spot"))
    states = {one["fact"]: one["state"] for one in told["facts"]}
    assert states["market"] == "not agreed"
    assert {state for fact, state in states.items() if fact != "market"} == {"agreed"}
    assert [one["changed"] for one in told["history"]] == [
        ["region: eu-north-1"],
        ["root_volume.size_gib: 80 -> 120"],
    ]


def test_a_rehearsal_without_an_agreement_needs_none(proposal: Proposal) -> None:
    request = dataclasses.replace(proposal.request, rehearsal=True)
    told = agreement(dataclasses.replace(proposal, request=request))
    assert {one["state"] for one in told["facts"]} == {"rehearsal"}
    assert (told["file"], told["history"]) == (None, [])


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_of_the_agreement_is_named_and_whether_it_still_holds(
    proposal: Proposal, tmp_path: Path
) -> None:
    folder = tmp_path / "profiles"
    folder.mkdir()
    file = folder / "x.lock.yaml"
    file.write_text("agreed\n")
    assert agreement(agreed(proposal, file))["history"][-1]["commit"] is None
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=agree")
    commit = git(folder, "rev-parse", "HEAD")
    assert [one["commit"] for one in agreement(agreed(proposal, file))["history"]] == [None, commit]
    file.write_text("changed\n")
    assert agreement(agreed(proposal, file))["history"][-1]["commit"] == f"{commit} dirty"
