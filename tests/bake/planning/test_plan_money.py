"""Quotas, prices and estimates; where moto has none, a server answers as AWS does."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from bake.account.prices import ask_prices
from bake.account.quotas import quota_class
from bake.aws import Aws
from bake.errors import UsageError
from bake.planning import estimates
from bake.planning.findings import Findings
from bake.planning.hardware import Types
from bake.planning.prices import Prices, find
from bake.planning.render import as_dict, as_text
from bake.planning.sources import Sources
from bake.profile.schema import RootVolume
from bake.request import ask_and_plan
from bake.weights import flux

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


def quota(vcpus: float) -> Any:
    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        names = {"L-DB2E81BA": "Running On-Demand G and VT instances", "L-3819A6DF": "All G and VT Spot"}
        code = request["QuotaCode"]
        return 200, {"Quota": {"QuotaCode": code, "QuotaName": names[code], "Value": vcpus}}

    return answer


def prices(**by_field: float) -> Any:
    """Prices by the value of any attribute asked for, as the price list writes them."""

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked = {item["Value"] for item in request["Filters"]}
        found = [{"pricePerUnit": {"USD": str(usd)}} for value, usd in by_field.items() if value in asked]
        products = [{"terms": {"OnDemand": {"A": {"priceDimensions": {"B": one}}}}} for one in found]
        price_list = [json.dumps(product) for product in products]
        return 200, {"FormatVersion": "aws_v1", "PriceList": price_list}

    return answer


# --- quotas ------------------------------------------------------------------------------------


def test_a_quota_that_does_not_answer_is_not_checked(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan()
    expected = "the on-demand quota L-DB2E81BA of g6e.xlarge (AWS answers NoSuchResourceException)"
    assert expected in plan.unchecked


def test_a_quota_with_room(plan_cloud: PlanCloud) -> None:
    plan_cloud.front.answers["GetServiceQuota"] = quota(8)
    assert "g6e.xlarge fits the quota: 4 vCPUs of 8, 0 in use" in plan_cloud.plan().checked


def test_a_service_that_is_slow_to_answer_has_answered(plan_cloud: PlanCloud) -> None:
    def slow(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        time.sleep(4)  # longer than anybody is waited for who does not take the connection
        answered: tuple[int, dict[str, Any]] = quota(8)(request)
        return answered

    plan_cloud.front.answers["GetServiceQuota"] = slow
    assert "g6e.xlarge fits the quota: 4 vCPUs of 8, 0 in use" in plan_cloud.plan().checked


def test_a_quota_of_nothing_says_how_to_ask_for_more(plan_cloud: PlanCloud) -> None:
    plan_cloud.front.answers["GetServiceQuota"] = quota(0)
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan(builder={"market": "spot"})
    assert caught.value.message.splitlines() == [
        "builder.instance_type: g6e.xlarge has 4 vCPUs, "
        "but the account's spot quota in eu-north-1 has 0 left",
        "    All G and VT Spot: 0, running now: 0",
        "    aws service-quotas request-service-quota-increase --region eu-north-1 --service-code ec2 "
        "--quota-code L-3819A6DF --desired-value 4",
    ]


def test_what_runs_counts(plan_cloud: PlanCloud) -> None:
    """Running instances of the same quota take their vCPUs from it; moto leaves CpuOptions out."""

    def cpus(parsed: dict[str, Any], **_: Any) -> None:
        for reservation in parsed["Reservations"]:
            for instance in reservation["Instances"]:
                instance["CpuOptions"] = {"CoreCount": 2, "ThreadsPerCore": 2}

    plan_cloud.front.answers["GetServiceQuota"] = quota(4)
    aws = plan_cloud.aws()
    aws.ec2.meta.events.register("after-call.ec2.DescribeInstances", cpus)
    others = [
        aws.ec2.run_instances(
            ImageId=plan_cloud.variables["BASE_AMI_ID"], InstanceType=kind, MinCount=1, MaxCount=1
        )["Instances"][0]["InstanceId"]
        for kind in ("g5.xlarge", "t3.micro")
    ]
    try:
        with pytest.raises(UsageError, match="Running On-Demand G and VT instances: 4, running now: 4"):
            ask_and_plan(plan_cloud.profile(), aws, Sources(sizes=flux.SIZES))
    finally:
        aws.ec2.terminate_instances(InstanceIds=others)
    plan = ask_and_plan(plan_cloud.profile(), aws, Sources(sizes=flux.SIZES))
    assert "g6e.xlarge fits the quota: 4 vCPUs of 4, 0 in use" in plan.checked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("g6e.xlarge", "g|gr|vt"),
        ("gr6.4xlarge", "g|gr|vt"),
        ("inf2.xlarge", "inf"),
        ("trn1.2xlarge", "trn"),
        ("p5.48xlarge", "p"),
        ("t3.micro", "a|c|d|h|i|m|r|t|z"),
        ("is4gen.medium", None),
        ("mac2.metal", None),
    ],
)
def test_families_share_quotas(name: str, expected: str | None) -> None:
    assert quota_class(name) == expected


# --- prices and estimates ----------------------------------------------------------------------


def test_without_an_api_that_tells_no_price_is_made_up(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan()
    assert plan.estimates.bake_dollars is None
    assert "0.4 h, price not known here" in as_text(plan)
    assert "prices (AWS answers 500)" in plan.unchecked
    assert "$" not in as_text(plan)


def test_prices_of_the_price_list(plan_cloud: PlanCloud) -> None:
    plan_cloud.front.answers["GetProducts"] = prices(**{"g6e.xlarge": 1.9725, "Storage Snapshot": 0.0475})
    plan = plan_cloud.plan()
    assert plan.estimates.prices.builder_hour == 1.9725
    hours = plan.estimates.seconds / 3600
    assert plan.estimates.bake_dollars == pytest.approx(1.9725 * hours)
    text = as_text(plan)
    assert f"0.4 h, ${1.9725 * hours:.2f} " in text
    assert f"GB-month, ${0.0475 * plan.estimates.snapshot_gb:.2f} a month" in text


def test_a_product_without_a_price_is_not_known(plan_cloud: PlanCloud) -> None:
    plan_cloud.front.answers["GetProducts"] = prices()
    assert plan_cloud.plan().estimates.bake_dollars is None


def test_a_spot_price_of_2006_is_no_price(plan_cloud: PlanCloud) -> None:
    """moto tells one of 2006; EC2 keeps 90 days."""
    assert plan_cloud.plan(builder={"market": "spot"}).estimates.prices.builder_hour is None


def test_a_spot_price_of_today(plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.ec2.responses.spot_instances import SpotInstances

    told = {
        "InstanceType": "g6e.xlarge",
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": "0.81",
        "AvailabilityZone": "eu-north-1b",
        "Timestamp": datetime.now(UTC),
    }
    from moto.core.responses import ActionResult

    monkeypatch.setattr(
        SpotInstances, "describe_spot_price_history", lambda self: ActionResult({"SpotPriceHistory": [told]})
    )
    assert plan_cloud.plan(builder={"market": "spot"}).estimates.prices.builder_hour == 0.81


def test_the_cold_start_is_bytes_over_the_lower_limit(plan_cloud: PlanCloud) -> None:
    """g6e.xlarge gets 125 MB/s of EBS steadily, gp3 has 125 MiB/s: 33.74 GB / 125 MB/s."""
    found = plan_cloud.plan().estimates
    assert (found.volume, found.instance) == (pytest.approx(131.072), 125.0)
    assert round(found.cold_start_seconds) == round(33_741e6 / 125e6)
    assert found.limit == "the instance type's EBS limit"


def test_a_volume_that_is_not_filled_yet_makes_the_cold_start_longer(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan()
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


def test_a_volume_slower_than_that_takes_no_longer(plan_cloud: PlanCloud) -> None:
    """The lower limit holds."""
    slow = plan_cloud.plan(root_volume={"type": "io1", "iops": 250, "throughput": None}).estimates
    assert slow.volume < slow.hydration_rate
    assert slow.hydration_seconds == 0


def test_a_larger_type_waits_for_the_volume(plan_cloud: PlanCloud) -> None:
    found = plan_cloud.plan(builder={"instance_type": "g6e.4xlarge"}).estimates
    assert found.limit == "the volume's limit"
    assert round(found.cold_start_seconds) == round(33_741e6 / 131.072e6)


def test_a_volume_faster_than_the_type_is_warned_of(plan_cloud: PlanCloud) -> None:
    plan = plan_cloud.plan(root_volume={"throughput": 1000, "iops": 4000})
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
        ({"type": "io1", "iops": 20_000}, 500),
        ({"type": "io1", "iops": 64_000}, 1000),
        ({"type": "io2", "iops": 8000}, 2000),
        ({"type": "io2", "iops": 100_000}, 4000),
    ],
)
def test_throughput_follows_from_the_volume(volume: dict[str, Any], mib: int) -> None:
    found = RootVolume(**{"size_gib": 80, **volume})
    assert estimates.throughput(found) == pytest.approx(mib * 1.048576)


# --- partitions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-north-1", "aws"),
        ("us-gov-west-1", "aws-us-gov"),
        ("cn-north-1", "aws-cn"),
        ("us-iso-east-1", "aws-iso"),
        ("eusc-de-east-1", "aws-eusc"),
        ("eu-nowhere-1", "aws"),
        ("xx-nowhere-1", "aws"),
    ],
)
def test_the_price_list_is_asked_in_its_own_partition(
    plan_cloud: PlanCloud, region: str, partition: str
) -> None:
    aws = Aws(region=region, worker_region=region, endpoint=plan_cloud.endpoint)
    assert aws.partition == partition
    plan_cloud.front.answers["GetProducts"] = prices(**{"g6e.xlarge": 2.0})
    plan, findings = plan_cloud.plan(), Findings()
    types = Types(plan.launch.types, plan.launch.worker_types)
    found = find(plan.profile, types, ask_prices(plan.profile, lambda: None, aws), findings)
    if partition == "aws":
        assert (found.builder_hour, findings.unchecked) == (2.0, [])
    else:
        assert found == Prices(None, None, None)
        assert findings.unchecked == [f"prices (the price list knows none of {partition})"]
