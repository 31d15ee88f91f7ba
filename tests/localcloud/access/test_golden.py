"""The evaluator against cases of AWS's documentation, and against another evaluator."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from bake.localcloud.api.access.evaluation import WITH_VARIABLES, Caller, evaluate
from bake.localcloud.api.access.needs import Need

from .made_up import MadeUp
from .node import ask

FILE = Path(__file__).parent / "golden.yaml"
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/worker"
CALLER = Caller("AWS", frozenset({ROLE}), ACCOUNT)
_GOLDEN = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def case(given: dict[str, Any]) -> dict[str, Any]:
    """A case with all that the file leaves out as usual."""
    found = {**_GOLDEN["usual"], "context": {}, "version": WITH_VARIABLES, **given}
    if "condition" in found:
        found["statements"] = [
            {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": found["condition"]}
        ]
    listed = found.get("policies") or [found["statements"]]
    found["policies"] = [{"Version": found["version"], "Statement": one} for one in listed]
    if "of_resource" in found:
        found["of_resource"] = {"Version": found["version"], "Statement": found["of_resource"]}
    return found


CASES = [case(one) for one in _GOLDEN["cases"]]
IDS = [one["name"] for one in CASES]


def need(found: dict[str, Any]) -> Need:
    values = found["context"].items()
    context = {key: tuple(one) if isinstance(one, list) else (one,) for key, one in values}
    return Need(found["action"], found["resource"], context)


def decided(found: dict[str, Any]) -> str:
    of_resource = [found["of_resource"]] if "of_resource" in found else []
    documents = [json.dumps(document) for document in found["policies"]]
    return evaluate(documents, need(found), of_resource, CALLER).effect


@pytest.mark.parametrize("found", CASES, ids=IDS)
def test_it_decides_as_aws_documents(found: dict[str, Any]) -> None:
    assert decided(found) == found["expect"]


def test_each_case_has_a_name_of_its_own_and_a_source() -> None:
    assert len(set(IDS)) == len(IDS) >= 100
    assert all(one["source"].startswith(("reference_policies", "access_", "id_roles")) for one in CASES)


def others(cases: list[dict[str, Any]]) -> list[str]:
    """What @cloud-copilot/iam-simulate decides."""
    questions = [
        {
            "principal": ROLE,
            "account": ACCOUNT,
            **{name: one[name] for name in ("action", "resource", "context", "policies")},
            "ofResource": one.get("of_resource"),
        }
        for one in cases
    ]
    return list(ask("simulate.mjs", questions))


@pytest.mark.integration
def test_another_evaluator_decides_the_same() -> None:
    asked = [one for one in CASES if "apart" not in one]
    found = {one["name"]: answer for one, answer in zip(asked, others(asked), strict=True)}
    assert found == {one["name"]: one["expect"] for one in asked}
    assert len(asked) >= 90


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(3))
def test_another_evaluator_decides_the_same_of_made_up_policies(seed: int) -> None:
    made_up = MadeUp(seed)
    asked = [made_up.request() for _ in range(2000)]
    answers = others(asked)
    differing = [(one, answer) for one, answer in zip(asked, answers, strict=True) if decided(one) != answer]
    assert differing == []
    assert min(Counter(answers)[effect] for effect in ("allowed", "explicitDeny", "implicitDeny")) > 100
