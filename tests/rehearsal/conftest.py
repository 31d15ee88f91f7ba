"""One booted builder for all cases that need a machine and no whole bake, one baked image for the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake.localcloud.cloud import LocalCloud

from .bakes import Outcome, rehearse

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
def baked(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A whole rehearsal of g6e-ubuntu."""
    outcome = rehearse(tmp_path_factory.mktemp("baked"), "g6e-ubuntu")
    assert outcome.code == 0, outcome.errors
    return outcome


@pytest.fixture(scope="session")
def image(baked: Outcome) -> str:
    """The AMI that came of it."""
    return str(baked.manifest["image"]["id"])
