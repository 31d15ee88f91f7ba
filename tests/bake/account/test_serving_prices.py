"""Which products of the price list serving is priced by, and what becomes of answers that are missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bake.account.answers import Unanswered
from bake.account.serving_prices import ServingPrices, ask_serving_prices
from bake.localcloud import prices
from bake.localcloud.api import price_list
from tests.bake.conftest import PlanCloud

pytestmark = pytest.mark.integration


def listed(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """As the local cloud answers."""
    return 200, dict(price_list.answer(request))


def product(usage: str, *tiers: tuple[str, float], **attributes: str) -> str:
    """A product as the price list has it, its tiers in this order."""
    dimensions = {
        str(number): {"beginRange": begin, "unit": "Requests", "pricePerUnit": {"USD": f"{usd:.10f}"}}
        for number, (begin, usd) in enumerate(tiers)
    }
    told = {"attributes": {"usagetype": usage, **attributes}}
    return json.dumps({"product": told, "terms": {"OnDemand": {"x": {"priceDimensions": dimensions}}}})


def asked(cloud: PlanCloud, **variables: str) -> ServingPrices:
    cloud.variables.update(variables)
    return ask_serving_prices(cloud.profile(), cloud.aws())


def test_each_product_has_its_price_without_the_free_tier(plan_cloud: PlanCloud) -> None:
    plan_cloud.front.answers["GetProducts"] = listed
    found = asked(plan_cloud)
    assert found.units == {
        "queue": prices.QUEUE_REQUEST,
        "put": prices.PUT,
        "get": prices.GET,
        "storage": prices.BUCKET_MONTH,
        "event": prices.EVENT,
        "alarm": prices.ALARM_MONTH,
        "metric": prices.METRIC_MONTH,
        "metric-call": prices.METRIC_CALL,
        "instances-alarm": prices.ALARM_MONTH,
        "function": prices.FUNCTION_REQUEST,
        "function-time": prices.FUNCTION_TIME,
        "transfer": prices.TRANSFER,
    }
    assert found.volume == prices.VOLUME_MONTH
    assert found.hours["g6e.xlarge"].on_demand == pytest.approx(4 * prices.VCPU_HOUR)


def test_a_fifo_queue_has_a_price_of_its_own(plan_cloud: PlanCloud) -> None:
    plan_cloud.front.answers["GetProducts"] = listed
    profile = plan_cloud.profile(
        worker={"queue": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs.fifo"}
    )
    found = ask_serving_prices(profile, plan_cloud.aws())
    assert found.units["queue"] == prices.FIFO_REQUEST
    assert found.titles["queue"].title == "SQS request (FIFO)"


def test_each_price_is_asked_in_the_region_where_it_is_used(plan_cloud: PlanCloud) -> None:
    where: dict[str, dict[str, str]] = {}

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        fields = {one["Field"]: one["Value"] for one in request["Filters"]}
        key = f"{request['ServiceCode']} {fields.get('productFamily', '')}".strip()
        where.setdefault(key, {}).update({k: v for k, v in fields.items() if k.endswith("egionCode")})
        return listed(request)

    plan_cloud.front.answers["GetProducts"] = answer
    asked(plan_cloud)
    home, spot = {"regionCode": "eu-west-1"}, {"regionCode": "eu-north-1"}
    assert where["AWSQueueService"] == where["AWSEvents"] == where["AmazonS3 Storage"] == home
    assert where["AWSLambda"] == where["AmazonCloudWatch Metric"] == where["AmazonEC2 Storage"] == spot
    assert where["AWSDataTransfer"] == {"fromRegionCode": "eu-north-1", "toRegionCode": "eu-west-1"}


@pytest.mark.parametrize(
    ("service", "name", "others", "right"),
    [
        # us-east-1 names its requests so, and without the region.
        ("AWSQueueService", "queue", ["Requests-Tier2"], "Requests-RBP"),
        ("AmazonS3", "put", ["EU-Requests-INT-Tier1", "EU-Requests-Tier10"], "EU-Requests-Tier1"),
        ("AmazonS3", "storage", ["EU-TimedStorage-INT-FA-ByteHrs"], "EU-TimedStorage-ByteHrs"),
        ("AmazonCloudWatch", "alarm", ["EU-CW:HighResAlarmMonitorUsage"], "EU-CW:AlarmMonitorUsage"),
        ("AWSLambda", "function", ["EUN1-Request-ARM"], "EUN1-Request"),
        ("AWSDataTransfer", "transfer", ["EUN1-EU-AWS-Out-ABytes"], "EUN1-EU-AWS-Out-Bytes"),
    ],
)
def test_a_products_neighbours_are_not_it(
    plan_cloud: PlanCloud, service: str, name: str, others: list[str], right: str
) -> None:
    found = [product(other, ("0", 9.0)) for other in others]
    found.append(product(right, ("1000", 0.2), ("0", 0.5)))

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"PriceList": found if request["ServiceCode"] == service else []}

    plan_cloud.front.answers["GetProducts"] = answer
    units = asked(plan_cloud).units
    assert units[name] == 0.5  # of the first tier, whichever comes first
    assert units["event"] is None


def test_one_answer_that_is_missing_hides_no_other(plan_cloud: PlanCloud) -> None:
    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if request["ServiceCode"] == "AmazonS3":
            return 400, {"__type": "AccessDeniedException", "message": "no"}
        return listed(request)

    plan_cloud.front.answers["GetProducts"] = answer
    units = asked(plan_cloud).units
    assert units["put"] == Unanswered("AWS answers AccessDeniedException")
    assert units["queue"] == prices.QUEUE_REQUEST
