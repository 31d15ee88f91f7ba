"""The account of these tests: regions of moto where no other test is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bake import creation
from bake.aws import Aws
from tests.bake.conftest import PlanCloud
from tests.bake.lifecycle.account import HOME, SPOT, Account


@pytest.fixture
def account(plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setattr(creation, "APPEARS_WITHIN", 3.0)

    def aws() -> Aws:
        made = Aws(region=SPOT, worker_region=HOME, endpoint=plan_cloud.endpoint)
        made._session._session.register_component("data_loader", plan_cloud._loader)
        return made

    made = Account(aws(), aws())
    yield made
    plan_cloud.faults.clear()
    made.clean()
