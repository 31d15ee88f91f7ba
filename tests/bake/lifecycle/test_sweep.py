"""What a sweep removes of each kind, and what it leaves, in an account of moto."""

from __future__ import annotations

import pytest

from bake.lifecycle import inventory
from bake.lifecycle.sweep import preview, sweep
from tests.bake.lifecycle.account import Account, run_id

pytestmark = pytest.mark.integration
KINDS = (
    *("key pair", "security group", "volume", "network interface", "instance", "spot request"),
    *("AMI", "snapshot", "queue", "bucket", "event bus", "schedule group"),
)


def there(account: Account, run: str) -> set[str]:
    return {held.id for held in inventory.take(account.maker, prices=False).of(run)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_expired_run_left_is_removed(account: Account, kind: str) -> None:
    run = run_id()
    made = account.make(kind, account.tags(run))
    seen = preview(account.aws, run, prices=False)
    assert made in [one.held.id for one in seen.swept], [(v.held.id, v.why) for v in seen.verdicts]
    done = sweep(account.aws, run)
    assert done.leaks == []
    assert made in [held.id for held in done.removed]
    assert there(account, run) == set()
    assert sweep(account.aws, run).removed == []  # idempotent
