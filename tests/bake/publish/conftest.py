"""The local cloud's API with machines that are records, and clients of it as a bake has them."""

from __future__ import annotations

import pytest

from bake.aws import AccessKey, Aws
from bake.localcloud.settings import SPOT_REGION
from tests.localcloud.api.conftest import Account, served

from .images import Good, good_image

__all__ = ["aws", "served", "witness"]

HOME = "eu-west-1"


def clients(account: Account) -> Aws:
    key = AccessKey(account.key, account.secret)
    return Aws(region=SPOT_REGION, worker_region=HOME, endpoint=account.url, endpoint_key=key)


@pytest.fixture
def aws(served: Account) -> Aws:
    """The clients of a bake, patient as in a bake; a test may let calls of them fail."""
    return clients(served).patiently(20)


@pytest.fixture(scope="session")
def witness(served: Account) -> Aws:
    """Clients with which no test meddles."""
    return clients(served)


@pytest.fixture
def good(witness: Aws) -> Good:
    """A good AMI of a profile of its own."""
    return good_image(witness)
