"""The account of a local cloud is the same one each time it comes up."""

from __future__ import annotations

from moto.ec2.models import EC2Backend

from bake import iam
from bake.localcloud.lifecycle import fixtures
from bake.localcloud.settings import SPOT_REGION, Settings


def ids(network: str) -> tuple[str, ...]:
    settings = Settings.load({"BAKE_LOCAL_STATE": "/nowhere", "BAKE_LOCAL_NETWORK": network})
    backend = EC2Backend(SPOT_REGION, "123456789012")
    subnet, private, group = fixtures._network(backend, settings)
    return backend.get_subnet(subnet).vpc_id, subnet, private, group


def test_ids_follow_from_the_network() -> None:
    assert ids("10.214.40.0/24") == ids("10.214.40.0/24")
    assert not set(ids("10.214.40.0/24")) & set(ids("10.214.41.0/24"))


def test_other_ids_stay_random() -> None:
    backend = EC2Backend(SPOT_REGION, "123456789012")
    ids("10.214.40.0/24")
    made = {backend.create_vpc("10.0.0.0/16").id for _ in range(2)}
    assert len(made) == 2


def test_the_workers_role_has_the_rights_that_bake_iam_prints() -> None:
    """For the names of the local cloud's queues, buckets and buses."""
    policy = fixtures.role_policy()
    printed = iam.of_worker(iam.Account("123456789012", SPOT_REGION, "eu-west-1"), *fixtures.NAMES)
    assert policy == iam.document(printed)
    assert "arn:aws:sqs:eu-west-1:123456789012:bake-*" in policy["Statement"][0]["Resource"]
