"""Callers with policies of their own: POST /-/caller, and what they needed: GET /-/needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bake.aws import AccessKey, Aws
from bake.errors import UsageError
from bake.localcloud.api.access import callers
from bake.localcloud.network.control import Ask, Control, over_http
from bake.localcloud.network.server import serve

from .conftest import REGION, Cloud, refusal

LISTING = {"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*"}

OTHER = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


@pytest.fixture(scope="module")
def ask(served: Cloud) -> Iterator[Ask]:
    server = serve("127.0.0.1", 0, Control(callers.routes(served.keys, served.needs)), "the control routes")
    yield over_http(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()


def aws(cloud: Cloud, key: AccessKey) -> Aws:
    """As a rehearsal has it."""
    return Aws(region=REGION, worker_region=REGION, endpoint=cloud.url, endpoint_key=key)


def test_a_caller_may_do_what_its_policies_allow_and_nothing_else(cloud: Cloud, ask: Ask) -> None:
    mine = aws(cloud, callers.take_role(ask, "lister", [policy(LISTING)]))
    assert mine.sqs.list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert refusal(mine.sqs.create_queue, QueueName="bake-x")[0] == "AccessDenied"


def test_its_identity_is_that_of_an_assumed_role(cloud: Cloud, ask: Ask) -> None:
    mine = aws(cloud, callers.take_role(ask, "somebody", []))
    identity = mine.sts.get_caller_identity()
    assert identity["Arn"] == "arn:aws:sts::123456789012:assumed-role/somebody/bake"
    assert identity["UserId"].startswith("AROA") and identity["UserId"].endswith(":bake")


def test_its_policies_are_replaced_and_its_credentials_go_on(cloud: Cloud, ask: Ask) -> None:
    first = callers.take_role(ask, "changing", [policy(LISTING), policy(OTHER)])
    aws(cloud, first).sqs.list_queues()
    second = callers.take_role(ask, "changing", [])
    assert second == first
    assert refusal(aws(cloud, first).sqs.list_queues)[0] == "AccessDenied"


def test_a_policy_that_iam_refuses_changes_nothing(cloud: Cloud, ask: Ask) -> None:
    key = callers.take_role(ask, "careful", [policy(LISTING)])
    with pytest.raises(UsageError, match="policy 2 of careful"):
        callers.take_role(ask, "careful", [policy(OTHER), policy({"Effect": "Perhaps", "Action": "*"})])
    aws(cloud, key).sqs.list_queues()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"name": "a"}', b'{"name": "", "policies": []}'])
def test_what_is_no_caller_is_refused(cloud: Cloud, ask: Ask, content: bytes) -> None:
    with pytest.raises(UsageError, match="a caller is"):
        ask("POST", "/-/caller", content)


def test_what_a_caller_needed_is_told_once_with_what_was_refused(cloud: Cloud, ask: Ask) -> None:
    mine = aws(cloud, callers.take_role(ask, "ledger", [policy(LISTING)]))
    for _ in range(2):
        mine.sqs.list_queues()
        refusal(mine.sqs.create_queue, QueueName="bake-ledger", tags={"bake:run": "r-1"})
    arn = "arn:aws:sts::123456789012:assumed-role/ledger/bake"
    found = [one for one in callers.needs(ask) if one["principal"] == arn]
    assert [(one["action"], one["allowed"]) for one in found] == [
        ("sqs:ListQueues", True),
        ("sqs:CreateQueue", False),
    ]
    assert found[1]["resource"] == f"arn:aws:sqs:{REGION}:123456789012:bake-ledger"
    assert found[1]["context"]["aws:RequestTag/bake:run"] == ["r-1"]
    assert found[1]["context"]["aws:TagKeys"] == ["bake:run"]


def test_what_the_administrator_calls_is_not_told(cloud: Cloud, ask: Ask) -> None:
    before = callers.needs(ask)
    cloud.client("sqs").list_queues()
    assert callers.needs(ask) == before


def test_a_key_is_not_shown(cloud: Cloud, ask: Ask) -> None:
    key = callers.take_role(ask, "quiet", [])
    assert key.secret not in repr(key) and key.token not in repr(key)
    assert key.secret not in json.dumps(callers.needs(ask))
