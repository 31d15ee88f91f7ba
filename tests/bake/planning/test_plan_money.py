"""Quotas, and what is paid for in vain."""

from __future__ import annotations

import pytest

from bake.account.quotas import Quota
from bake.errors import UsageError

from .conftest import Account


def test_a_quota_of_nothing_says_how_to_ask_for_more(account: Account) -> None:
    account.quotas["g|gr|vt"] = Quota("All G and VT Spot", 0, 0)
    with pytest.raises(UsageError) as caught:
        account.plan(builder={"market": "spot"})
    assert caught.value.message.splitlines() == [
        "builder.instance_type: g6e.xlarge has 4 vCPUs, "
        "but the account's spot quota in eu-north-1 has 0 left",
        "    All G and VT Spot: 0, running now: 0",
        "    aws service-quotas request-service-quota-increase --region eu-north-1 --service-code ec2 "
        "--quota-code L-3819A6DF --desired-value 4",
    ]


def test_a_volume_faster_than_the_type_is_warned_of(account: Account) -> None:
    plan = account.plan(root_volume={"throughput": 1000, "iops": 4000})
    assert plan.warnings == (
        "root_volume.throughput: 1049 MB/s is more than g6e.xlarge ever gets from EBS: 125 MB/s steadily, "
        "625 MB/s for a while",
    )
