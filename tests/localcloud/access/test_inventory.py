"""What the evaluator asks of the account, by what is really there."""

from __future__ import annotations

from typing import Any

import pytest

from bake.localcloud.api.access.inventory import MotoInventory
from bake.localcloud.settings import ACCOUNT

from ..moto_account import MotoAccount, new

pytestmark = pytest.mark.integration

REGION = "eu-west-1"  # MotoAccount's
KEYS = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/"


@pytest.fixture
def inventory() -> MotoInventory:
    return MotoInventory()


def test_a_key_of_ones_own_is_known_by_all_its_names(
    moto_account: MotoAccount, inventory: MotoInventory
) -> None:
    kms, alias = moto_account.client("kms"), f"alias/{new()}"
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName=alias, TargetKeyId=key["KeyId"])
    for name in (key["KeyId"], key["Arn"], alias):
        assert inventory.own_key(REGION, name) == key["Arn"]
    assert inventory.own_key(REGION, "unknown") == f"{KEYS}unknown"
    assert inventory.own_key(REGION, f"alias/{new()}") is not None


def test_awss_own_key_needs_no_right(moto_account: MotoAccount, inventory: MotoInventory) -> None:
    key = moto_account.call("kms", "describe_key", KeyId="alias/aws/ebs")["KeyMetadata"]
    for name in ("alias/aws/ebs", key["KeyId"], key["Arn"]):
        assert inventory.own_key(REGION, name) is None


def test_a_volumes_key_is_told_where_it_is_the_accounts_own(
    moto_account: MotoAccount, inventory: MotoInventory
) -> None:
    ec2, key = moto_account.client("ec2"), moto_account.call("kms", "create_key")["KeyMetadata"]
    encrypted: dict[str, Any] = {"AvailabilityZone": f"{REGION}a", "Size": 1, "Encrypted": True}
    mine = ec2.create_volume(**encrypted, KmsKeyId=key["Arn"])["VolumeId"]
    awss = ec2.create_volume(**encrypted)["VolumeId"]
    plain = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    assert inventory.disk_key(REGION, mine) == key["Arn"]
    assert inventory.disk_key(REGION, awss) is None
    assert inventory.disk_key(REGION, plain) is None
    assert inventory.disk_key(REGION, "snap-00000000000000000") is None


def test_names_lead_to_ids_and_tags(moto_account: MotoAccount, inventory: MotoInventory) -> None:
    ec2, name = moto_account.client("ec2"), new()
    tags: Any = [{"ResourceType": "key-pair", "Tags": [{"Key": "a", "Value": "b"}]}]
    pair = ec2.create_key_pair(KeyName=name, TagSpecifications=tags)
    group = ec2.create_security_group(GroupName=name, Description="d")["GroupId"]
    assert inventory.ec2_name(REGION, "key-pair", pair["KeyPairId"]) == name
    assert inventory.ec2_tags(REGION, "key-pair", name) == {"a": "b"}
    assert inventory.ec2_name(REGION, "security-group", name) == group


def test_a_roles_and_a_secrets_arn_are_those_of_what_is_there(
    moto_account: MotoAccount, inventory: MotoInventory
) -> None:
    name = new()
    role = moto_account.call("iam", "create_role", RoleName=name, Path="/x/", AssumeRolePolicyDocument="{}")
    moto_account.call("iam", "create_instance_profile", InstanceProfileName=name)
    moto_account.call("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=name)
    assert inventory.role(name) == inventory.role_of_profile(name) == role["Role"]["Arn"]
    tags = [{"Key": "a", "Value": "b"}]
    arn = moto_account.call("secretsmanager", "create_secret", Name=name, SecretString="x", Tags=tags)["ARN"]
    assert inventory.secret(REGION, name) == (arn, {"a": "b"})
