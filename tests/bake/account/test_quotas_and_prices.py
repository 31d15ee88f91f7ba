"""Quotas and prices; where moto has none, a server answers as AWS does."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from bake.account.prices import ask_prices
from bake.account.quotas import quota_class
from bake.aws import Aws
from bake.errors import UsageError
from bake.planning.findings import Findings
from bake.planning.hardware import Types
from bake.planning.hydration_text import section
from bake.planning.prices import Prices, find
from bake.planning.render import as_text
from bake.planning.sources import Sources
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
    hydration = "\n".join(section(plan.hydration))  # has published figures, and says so
    assert "$" not in as_text(plan).replace(hydration, "")
    assert {
        way.name: plan.hydration.waiting(way) for way in plan.hydration.ways if plan.hydration.waiting(way)
    } == {}


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


# --- of two types ---------------------------------------------------------------------------------

CHEAP = {"instance_type": "m7i.xlarge"}
FOR_G6E = {"instance_type": "g6e.xlarge"}


def quotas_and_prices(plan_cloud: PlanCloud, hours: dict[str, float], quota: dict[str, float]) -> None:
    """The price list and the quotas, as AWS answers."""

    def price(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked = {item["Value"] for item in request["Filters"]}
        usd = [{"pricePerUnit": {"USD": str(value)}} for name, value in hours.items() if name in asked]
        products = [{"terms": {"OnDemand": {"A": {"priceDimensions": {"B": one}}}}} for one in usd]
        return 200, {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product) for product in products]}

    def limit(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        code = request["QuotaCode"]
        return 200, {"Quota": {"QuotaCode": code, "QuotaName": f"of {code}", "Value": quota[code]}}

    plan_cloud.front.answers |= {"GetProducts": price, "GetServiceQuota": limit}


def test_quota_and_price_are_those_of_both(plan_cloud: PlanCloud) -> None:
    hours = {"m7i.xlarge": 0.2142, "g6e.xlarge": 1.9725}
    quotas_and_prices(plan_cloud, hours, {"L-1216C47A": 16, "L-DB2E81BA": 8})
    plan = plan_cloud.plan(builder=CHEAP, worker=FOR_G6E)
    assert "m7i.xlarge fits the quota: 4 vCPUs of 16, 0 in use" in plan.checked
    assert "g6e.xlarge fits the quota: 4 vCPUs of 8, 0 in use" in plan.checked
    found = plan.estimates
    assert found.builder_dollars == pytest.approx(0.2142 * found.builder_seconds / 3600)
    assert found.boot_check_dollars == pytest.approx(1.9725 * found.boot_check_seconds / 3600)
    text = as_text(plan)
    assert re.search(rf"builder +{found.builder_seconds / 3600:.1f} h, \${found.builder_dollars:.2f} ", text)
    check = f"{found.boot_check_seconds / 3600:.1f} h, \\${found.boot_check_dollars:.2f} "
    assert re.search(rf"boot check +{check} +on g6e\.xlarge\n", text)


def test_one_question_is_still_one_call(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    ask_and_plan(plan_cloud.profile(builder=CHEAP, worker=FOR_G6E), aws, Sources(sizes=flux.SIZES))
    # AMI, its snapshot, types, zones, subnet, group, instance profile, two quotas, prices, earlier images;
    # and of the preflight two launches, two route tables, endpoints, who calls, and the worker's rights.
    assert aws.tally.api_calls == 11 + 7
