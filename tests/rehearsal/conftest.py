"""One booted builder for all cases that need a machine and no whole bake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

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
