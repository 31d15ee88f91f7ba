"""One provisioned builder for all tests that check a real machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .builders import Builder, provisioned

if TYPE_CHECKING:
    from tests.conftest import NewMachine


@pytest.fixture(scope="package")
def builder(new_machine: NewMachine) -> Iterator[Builder]:
    """A builder that all tests mend again; the last test of test_checks_machine.py seals and stops it."""
    with new_machine() as machine:
        yield provisioned(machine)
