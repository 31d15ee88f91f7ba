"""Quotas, estimates, and what a volume gives."""

from __future__ import annotations

from typing import Any

import pytest

from bake.account.quotas import Quota
from bake.errors import UsageError
from bake.planning import estimates
from bake.planning.render import as_dict, as_text
from bake.profile.schema import RootVolume

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


def test_the_cold_start_is_bytes_over_the_lower_limit(account: Account) -> None:
    """g6e.xlarge gets 125 MB/s of EBS steadily, gp3 has 125 MiB/s: 33.74 GB / 125 MB/s."""
    found = account.plan().estimates
    assert (found.volume, found.instance) == (pytest.approx(131.072), 125.0)
    assert round(found.cold_start_seconds) == round(33_741e6 / 125e6)
    assert found.limit == "the instance type's EBS limit"


def test_a_volume_that_is_not_filled_yet_makes_the_cold_start_longer(account: Account) -> None:
    plan = account.plan()
    found = plan.estimates
    assert round(found.cold_start_seconds + found.hydration_seconds) == round(33_741e6 / 77e6)
    assert found.boot_check_seconds > found.cold_start_seconds + found.hydration_seconds
    shown = " ".join(as_text(plan).split())
    assert "cold start 438 s reads 33.7 GB: 270 s from a full volume, 168 s more from a new one" in shown
    assert "77 MB/s with the read-ahead of 2,560 KiB that the image sets" in shown
    assert "VolumeInitializationRate fills it in 107 s at best" in shown
    told = as_dict(plan)["estimates"]
    assert (told["hydration_rate"], round(told["hydration_seconds"])) == (77.0, 168)
    assert "simulated" in told["hydration_source"]


def test_a_volume_slower_than_that_takes_no_longer(account: Account) -> None:
    """The lower limit holds."""
    slow = account.plan(root_volume={"type": "io1", "iops": 250, "throughput": None}).estimates
    assert slow.volume < slow.hydration_rate
    assert slow.hydration_seconds == 0


def test_a_larger_type_waits_for_the_volume(account: Account) -> None:
    found = account.plan(builder={"instance_type": "g6e.4xlarge"}).estimates
    assert found.limit == "the volume's limit"
    assert round(found.cold_start_seconds) == round(33_741e6 / 131.072e6)


def test_a_volume_faster_than_the_type_is_warned_of(account: Account) -> None:
    plan = account.plan(root_volume={"throughput": 1000, "iops": 4000})
    assert plan.warnings == (
        "root_volume.throughput: 1049 MB/s is more than g6e.xlarge ever gets from EBS: 125 MB/s steadily, "
        "625 MB/s for a while",
    )


@pytest.mark.parametrize(
    ("volume", "mib"),
    [
        ({"type": "gp3"}, 125),
        ({"type": "gp3", "throughput": 500}, 500),
        ({"type": "gp2"}, 128),
        ({"type": "gp2", "size_gib": 500}, 250),
        ({"type": "io1", "iops": 1000}, 250),
        ({"type": "io1", "iops": 20_000, "size_gib": 400}, 500),
        ({"type": "io1", "iops": 64_000, "size_gib": 1280}, 1000),
        ({"type": "io2", "iops": 8000}, 2000),
        ({"type": "io2", "iops": 100_000, "size_gib": 100}, 4000),
    ],
)
def test_throughput_follows_from_the_volume(volume: dict[str, Any], mib: int) -> None:
    found = RootVolume(**{"size_gib": 80, **volume})
    assert estimates.throughput(found) == pytest.approx(mib * 1.048576)
