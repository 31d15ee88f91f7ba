"""KMS keys: the profile's, and the account's own where the image is shared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from moto.core.responses import ActionResult
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from bake.errors import UsageError

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

SHARED = {"share_with": ("111122223333",)}


@pytest.fixture
def encrypting(plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlanCloud]:
    """An account that encrypts every volume; moto does not know by which key, AWS's own is the default."""
    monkeypatch.setattr(
        ElasticBlockStore,
        "get_ebs_default_kms_key_id",
        lambda response: ActionResult({"KmsKeyId": "alias/aws/ebs"}),
        raising=False,
    )
    plan_cloud.aws().ec2.enable_ebs_encryption_by_default()
    yield plan_cloud
    plan_cloud.aws().ec2.disable_ebs_encryption_by_default()


def told(cloud: PlanCloud, **changes: Any) -> list[str]:
    return [text for text in cloud.plan(**changes).warnings if text.startswith("image.share_with")]


def test_an_account_that_encrypts_with_awss_own_key_cannot_share(encrypting: PlanCloud) -> None:
    (text,) = told(encrypting, image=SHARED)
    assert "encrypts every volume by default with AWS's own key aws/ebs" in text
    assert "root_volume.kms_key" in text


def test_without_a_share_nobody_is_told(encrypting: PlanCloud) -> None:
    assert told(encrypting) == []


def test_an_account_that_does_not_encrypt_shares(plan_cloud: PlanCloud) -> None:
    assert told(plan_cloud, image=SHARED) == []


def test_a_key_of_ones_own_can_be_shared(encrypting: PlanCloud) -> None:
    key = {"KeyMetadata": {"KeyManager": "CUSTOMER", "Enabled": True}}
    encrypting.front.answers["DescribeKey"] = lambda asked: (200, key)
    assert told(encrypting, image=SHARED, root_volume={"kms_key": "alias/ours"}) == []


def test_awss_key_by_any_name_cannot_be_shared(plan_cloud: PlanCloud) -> None:
    key = {"KeyMetadata": {"KeyManager": "AWS", "Enabled": True}}
    plan_cloud.front.answers["DescribeKey"] = lambda asked: (200, key)
    (text,) = told(plan_cloud, image=SHARED, root_volume={"kms_key": "1234abcd-12ab-34cd-56ef-1234567890ab"})
    assert "root_volume.kms_key is AWS's own key" in text


def test_a_key_that_is_not_there(plan_cloud: PlanCloud) -> None:
    with pytest.raises(UsageError, match=r"root_volume\.kms_key: there is no such KMS key in eu-north-1"):
        plan_cloud.plan(root_volume={"kms_key": "alias/nobodys"})


def test_a_key_that_is_disabled(plan_cloud: PlanCloud) -> None:
    kms = plan_cloud.aws().kms
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    assert "the KMS key exists and is enabled" in plan_cloud.plan(root_volume={"kms_key": key}).checked
    kms.disable_key(KeyId=key)
    with pytest.raises(UsageError, match=r"root_volume\.kms_key: the KMS key is disabled"):
        plan_cloud.plan(root_volume={"kms_key": key})
