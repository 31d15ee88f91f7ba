"""One running builder for tests that need a machine but no bake, and one baked image for the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake.aws import Aws
from bake.localcloud import LocalCloud
from bake.trees import hash_file

from ..bake.guard import frozen
from .bakes import HOSTILE, Outcome, rehearse

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine


@pytest.fixture(scope="session")
def machine(new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine() as machine:
        yield machine
    ours = [{"Name": "tag:bake:run", "Values": [machine.run.id]}]
    left = machine.aws.ec2.describe_instances(Filters=ours)  # type: ignore[arg-type]
    states = {item["State"]["Name"] for group in left["Reservations"] for item in group["Instances"]}
    assert states <= {"terminated"}
    assert not machine.aws.ec2.describe_key_pairs(Filters=ours)["KeyPairs"]  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def aws(cloud: LocalCloud) -> Aws:
    """Clients that look at what is there."""
    found = cloud.environment
    return Aws(
        region=found["SPOT_AWS_REGION"],
        worker_region=found["AWS_REGION"],
        endpoint=cloud.endpoint,
        endpoint_key=cloud.keys,
    )


@pytest.fixture(scope="session")
def baked(cloud: LocalCloud, aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A whole rehearsal of g6e-ubuntu: of the frozen profile and agreement, which go on working as they
    are, and in an environment that is set for anything but a rehearsal."""
    desk = tmp_path_factory.mktemp("baked")
    lock = desk / ".bake/rehearsal/g6e-ubuntu.lock.yaml"
    lock.parent.mkdir(parents=True)
    lock.write_text(frozen.agreement("g6e-ubuntu", _values(cloud, aws)), encoding="utf-8")
    outcome = rehearse(desk, "g6e-ubuntu", profiles=frozen.PROFILES, environment=HOSTILE, umask=0o077)
    assert outcome.code == 0, outcome.errors
    return outcome


def _values(cloud: LocalCloud, aws: Aws) -> dict[str, str]:
    """What the frozen agreement leaves to the account."""
    found = cloud.environment
    subnet = aws.ec2.describe_subnets(SubnetIds=[found["BAKE_SUBNET_ID"]])["Subnets"][0]
    names = ("BASE_AMI_ID", "BAKE_SUBNET_ID", "BAKE_SECURITY_GROUP_ID")
    worker = f"sha256:{hash_file(cloud.requirements)}"
    return {**{name: found[name] for name in names}, "VPC_ID": subnet["VpcId"], "WORKER_LOCK": worker}


@pytest.fixture(scope="session")
def image(baked: Outcome) -> str:
    """The AMI that came of it."""
    return str(baked.report["image"]["id"])
