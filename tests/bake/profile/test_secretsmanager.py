"""Secrets are read from Secrets Manager in AWS_REGION; errors never show any part of a secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake.aws import Aws
from bake.errors import BakeError
from bake.profile import secretsmanager

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

SECRETS = {
    "flux/hub": json.dumps({"token": "hf_canary", "number": 7}),
    "plain": "hf_canary",
    "list": '["hf_canary"]',
}


@pytest.fixture
def aws(plan_cloud: PlanCloud) -> Iterator[Aws]:
    aws = plan_cloud.aws()
    for name, content in SECRETS.items():
        aws.secretsmanager.create_secret(Name=name, SecretString=content)
    yield aws
    for name in SECRETS:
        aws.secretsmanager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def test_a_key_of_a_secret_is_read(aws: Aws) -> None:
    assert secretsmanager.value(aws, "flux/hub", "token") == "hf_canary"


@pytest.mark.parametrize(
    ("name", "key", "message", "hint"),
    [
        ("none", "token", "there is no secret none in eu-west-1", None),
        ("flux/hub", "tokn", "the secret flux/hub has no key tokn", "it has: number, token"),
        ("plain", "token", "the secret plain is not a JSON object", 'store it as {"KEY": "value"}'),
        ("list", "token", "the secret list is not a JSON object", 'store it as {"KEY": "value"}'),
    ],
)
def test_an_unreadable_secret_says_why(aws: Aws, name: str, key: str, message: str, hint: str | None) -> None:
    with pytest.raises(BakeError) as caught:
        secretsmanager.value(aws, name, key)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_without_a_region_nobody_is_asked() -> None:
    with pytest.raises(BakeError, match="the variable AWS_REGION is not set"):
        secretsmanager.reader({})("flux/hub", "token")
