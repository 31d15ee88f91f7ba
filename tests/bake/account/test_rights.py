"""IAM's simulation of what `bake iam` prints, for whoever bakes and for the worker."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bake import iam
from bake.account.answers import Unanswered
from bake.account.rights import Rights, ask_rights, questions_of
from bake.aws import Aws
from bake.iam import Subject

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


ROLE = "arn:aws:iam::123456789012:role/flux"


class Iam:
    """An IAM that simulates: what is denied, and which keys it misses."""

    def __init__(self, *denied: str, missing: tuple[str, ...] = ()) -> None:
        self.denied, self.missing = denied, missing
        self.asked: list[dict[str, Any]] = []

    def get_role(self, RoleName: str) -> Any:
        return {"Role": {"Arn": f"arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/{RoleName}"}}

    def get_paginator(self, name: str) -> Any:
        assert name == "simulate_principal_policy"
        return SimpleNamespace(paginate=self._simulate)

    def _simulate(self, **asked: Any) -> Iterator[Any]:
        self.asked.append(asked)
        yield {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalDecision": "implicitDeny" if action in (*self.denied, *self.missing) else "allowed",
                    "MissingContextValues": ["aws:SourceVpc"] if action in self.missing else [],
                }
                for action in asked["ActionNames"]
            ]
        }


def account(
    iam_: Any, caller: str = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Bake_1/me"
) -> Aws:
    aws = Aws(region="eu-north-1", worker_region="eu-west-1", endpoint="http://127.0.0.1:9")
    aws.__dict__["iam"] = iam_
    aws.__dict__["sts"] = SimpleNamespace(get_caller_identity=lambda: {"Arn": caller})
    return aws


def test_rights_are_asked_for_the_role_behind_a_session_and_for_the_workers(plan_cloud: PlanCloud) -> None:
    simulation = Iam("ec2:CreateImage", "sqs:ReceiveMessage", missing=("ec2:StopInstances",))
    found = ask_rights(plan_cloud.profile(), account(simulation), lambda: ROLE)
    assert isinstance(found.caller, Rights)
    assert isinstance(found.worker, Rights)
    assert found.caller.principal.endswith("role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Bake_1")
    assert {one.partition(" on ")[0] for one in found.caller.denied} == {
        "ec2:CreateImage",
        "sqs:ReceiveMessage",
    }
    assert [one.partition(" on ")[0] for one in found.worker.denied] == ["sqs:ReceiveMessage"]
    assert found.worker.principal == ROLE


def test_what_is_asked_is_what_bake_iam_allows(plan_cloud: PlanCloud) -> None:
    """Each question, put to the policies themselves, is allowed: its resource and context are theirs."""
    from bake.localcloud.api.access.evaluation import evaluate
    from bake.localcloud.api.access.needs import Need

    subject = Subject.of(plan_cloud.profile(), "123456789012", role=ROLE)
    for audience in ("caller", "worker"):
        statements = iam.statements(audience, subject)  # type: ignore[arg-type]
        questions = list(questions_of(statements))
        assert questions
        assert [
            (action, one)
            for one in questions
            for action in one.actions
            if not evaluate([iam.document(statements)], Need(action, one.resource, dict(one.context))).allowed
        ] == []


@pytest.mark.parametrize(
    "caller", ["arn:aws:iam::123456789012:root", "arn:aws:sts::123456789012:federated-user/me"]
)
def test_who_can_not_be_simulated_is_not_checked(plan_cloud: PlanCloud, caller: str) -> None:
    found = ask_rights(plan_cloud.profile(), account(Iam(), caller), lambda: None)
    assert isinstance(found.caller, Unanswered)
    assert caller in found.caller.why
    assert found.worker is None


def test_a_denial_by_simulation_is_a_warning_that_names_the_actions(
    plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = ask_rights(
        plan_cloud.profile(), account(Iam("ec2:CreateImage", "events:PutEvents")), lambda: ROLE
    )
    monkeypatch.setattr("bake.account.preflight.ask_rights", lambda *_: rights)
    warnings = plan_cloud.plan().warnings
    assert any("may not ec2:CreateImage on " in text and "--for caller" in text for text in warnings)
    of_worker = [
        text for text in warnings if text.startswith("builder.instance_profile: by IAM's simulation")
    ]
    assert len(of_worker) == 1
    assert "events:PutEvents" in of_worker[0]


def test_who_may_not_simulate_may_plan(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("iam", "SimulatePrincipalPolicy", "refuse", code="AccessDenied", times=None)
    plan = plan_cloud.plan()
    assert "the rights of the worker, by IAM's simulation (AWS answers AccessDenied)" in plan.unchecked
