"""The account of a local cloud is the same one each time it comes up."""

from __future__ import annotations

import json
import re
from pathlib import Path

from moto.ec2.models import EC2Backend

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


def test_a_worker_may_do_what_its_readme_says() -> None:
    """But for Auto Scaling, which is not there."""
    readme = (Path(__file__).parents[2] / "worker/README.md").read_text(encoding="utf-8")
    [policy] = [
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", readme, re.S) if "Statement" in text
    ]

    def actions(document: dict[str, list[dict[str, list[str] | str]]]) -> set[str]:
        named = [statement["Action"] for statement in document["Statement"]]
        return {one for action in named for one in ([action] if isinstance(action, str) else action)}

    told = {action for action in actions(policy) if not action.startswith("autoscaling:")}
    assert actions(fixtures.role_policy()) == told
