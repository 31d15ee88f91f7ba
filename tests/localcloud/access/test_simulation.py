"""iam:SimulatePrincipalPolicy and SimulateCustomPolicy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bake.localcloud.api.access.keys import Key

from .conftest import Cloud, refusal

INSTANCE = "arn:aws:ec2:eu-north-1:123456789012:instance/i-1"
MINE = {"Null": {"aws:ResourceTag/bake:run": "false"}}
STATEMENTS: list[dict[str, Any]] = [
    {
        "Effect": "Allow",
        "Action": "iam:SimulatePrincipalPolicy",
        "Resource": "arn:aws:iam::123456789012:role/*",
    },
    {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": MINE},
    {"Effect": "Deny", "Action": "ec2:StopInstances", "Resource": "*"},
]


@pytest.fixture(scope="module")
def caller(served: Cloud) -> Key:
    return served.caller(*STATEMENTS, name="simulated")


def role(key: Key) -> str:
    return f"arn:aws:iam::123456789012:role/{key.principal.role}"


def simulated(cloud: Cloud, key: Key, **more: Any) -> dict[tuple[str, str], str]:
    answer = cloud.client("iam", key).simulate_principal_policy(PolicySourceArn=role(key), **more)
    assert answer["IsTruncated"] is False
    return {
        (one["EvalActionName"], one["EvalResourceName"]): one["EvalDecision"]
        for one in answer["EvaluationResults"]
    }


def test_it_tells_of_each_action_how_it_is_decided(cloud: Cloud, caller: Key) -> None:
    asked = ["ec2:TerminateInstances", "ec2:StopInstances", "ec2:RunInstances"]
    assert simulated(cloud, caller, ActionNames=asked) == {
        ("ec2:TerminateInstances", "*"): "implicitDeny",
        ("ec2:StopInstances", "*"): "explicitDeny",
        ("ec2:RunInstances", "*"): "implicitDeny",
    }


def test_context_and_resources_count(cloud: Cloud, caller: Key) -> None:
    tag = {
        "ContextKeyName": "aws:ResourceTag/bake:run",
        "ContextKeyType": "string",
        "ContextKeyValues": ["r-1"],
    }
    found = simulated(
        cloud,
        caller,
        ActionNames=["ec2:TerminateInstances"],
        ResourceArns=[INSTANCE, "*"],
        ContextEntries=[tag],
    )
    assert found == {
        ("ec2:TerminateInstances", INSTANCE): "allowed",
        ("ec2:TerminateInstances", "*"): "allowed",
    }


def test_more_policies_may_be_added(cloud: Cloud, caller: Key) -> None:
    more = json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}]}
    )
    asked = ["sqs:SendMessage"]
    assert simulated(cloud, caller, ActionNames=asked) == {("sqs:SendMessage", "*"): "implicitDeny"}
    found = simulated(cloud, caller, ActionNames=asked, PolicyInputList=[more])
    assert found == {("sqs:SendMessage", "*"): "allowed"}
    answer = cloud.client("iam").simulate_custom_policy(PolicyInputList=[more], ActionNames=asked)
    assert [one["EvalDecision"] for one in answer["EvaluationResults"]] == ["allowed"]


@pytest.mark.parametrize(
    ("arn", "expected"),
    [
        ("arn:aws:iam::123456789012:role/none-such", ("NoSuchEntity", 404)),
        ("arn:aws:iam::123456789012:user/none-such", ("NoSuchEntity", 404)),
        ("arn:aws:sts::123456789012:assumed-role/simulated/bake", ("InvalidInput", 400)),
        ("arn:aws:iam::123456789012:root", ("InvalidInput", 400)),
    ],
)
def test_a_principal_that_is_none(cloud: Cloud, caller: Key, arn: str, expected: tuple[str, int]) -> None:
    simulate = cloud.client("iam").simulate_principal_policy
    assert refusal(simulate, PolicySourceArn=arn, ActionNames=["ec2:RunInstances"])[:2] == expected


def test_an_action_that_is_none(cloud: Cloud, caller: Key) -> None:
    simulate = cloud.client("iam").simulate_principal_policy
    assert refusal(simulate, PolicySourceArn=role(caller), ActionNames=["everything"])[0] == "InvalidInput"


def test_simulating_is_a_right_of_its_own(cloud: Cloud, caller: Key) -> None:
    powerless = cloud.caller(name="may-not-simulate")
    simulate = cloud.client("iam", powerless).simulate_principal_policy
    code, status, said = refusal(simulate, PolicySourceArn=role(caller), ActionNames=["ec2:RunInstances"])
    assert (code, status) == ("AccessDenied", 403)
    assert "iam:SimulatePrincipalPolicy on resource: arn:aws:iam::123456789012:role/simulated" in said
