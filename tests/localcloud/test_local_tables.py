"""The local cloud's own quotas and prices, and how RunInstances goes by the quotas."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from moto.ec2.exceptions import EC2ClientError

from bake.account import quotas as product
from bake.localcloud.api import quotas, tables
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.settings import SPOT_REGION


def told(service: str, operation: str, content: dict[str, Any]) -> dict[str, Any]:
    answer = tables.answer(OperationRequest(service, operation, SPOT_REGION, content), 64)
    assert answer is not None
    return dict(json.loads(answer.get_data()))


@pytest.mark.parametrize("family", product.CODES)
@pytest.mark.parametrize("market", ["on-demand", "spot"])
def test_each_quota_that_a_plan_asks_for_is_in_the_table(family: str, market: str) -> None:
    code = product.quota_code(family, market)
    quota = told("servicequotas", "GetServiceQuota", {"ServiceCode": "ec2", "QuotaCode": code})["Quota"]
    assert (quota["QuotaCode"], quota["Value"], SPOT_REGION in quota["QuotaArn"]) == (code, 64.0, True)
    listed = told("servicequotas", "ListServiceQuotas", {"ServiceCode": "ec2"})["Quotas"]
    assert quota in listed


@pytest.mark.parametrize(
    "name", ["g6e.xlarge", "inf2.8xlarge", "p5.48xlarge", "trn1.2xlarge", "t3.micro", "c7i.large"]
)
@pytest.mark.parametrize("spot", [True, False])
def test_a_type_counts_in_the_quota_that_a_plan_looks_at(name: str, spot: bool) -> None:
    shared = product.quota_class(name)
    quota = quotas.quota_of(name, spot=spot)
    assert shared is not None and quota is not None
    assert quota.code == product.quota_code(shared, "spot" if spot else "on-demand")


def test_an_unknown_quota_is_not_there() -> None:
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-00000000"}
    assert "NoSuchResourceException" in told("servicequotas", "GetServiceQuota", asked)["__type"]


def test_other_services_quotas_are_motos() -> None:
    asked = OperationRequest(
        "servicequotas", "GetServiceQuota", SPOT_REGION, {"ServiceCode": "vpc", "QuotaCode": "L-1"}
    )
    assert tables.answer(asked, 64) is None


def price(**attributes: str) -> list[float]:
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in attributes.items()]
    asked = {"ServiceCode": "AmazonEC2", "Filters": filters}
    found = [json.loads(one) for one in told("pricing", "GetProducts", asked)["PriceList"]]
    terms = [next(iter(one["terms"]["OnDemand"].values())) for one in found]
    return [float(next(iter(one["priceDimensions"].values()))["pricePerUnit"]["USD"]) for one in terms]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param({"instanceType": "g6e.xlarge", "operatingSystem": "Linux"}, [0.4], id="instance"),
        pytest.param({"productFamily": "Storage", "volumeApiName": "gp3"}, [0.1], id="volume"),
        pytest.param({"productFamily": "Storage Snapshot"}, [0.05], id="snapshot"),
        pytest.param({"instanceType": "g99.huge"}, [], id="unknown"),
        pytest.param({"instanceType": "g6e.xlarge", "operatingSystem": "Windows"}, [], id="system"),
    ],
)
def test_prices_are_round(attributes: dict[str, str], expected: list[float]) -> None:
    assert price(regionCode=SPOT_REGION, **attributes) == expected
    assert price(regionCode="mars-1", **attributes) == []


@pytest.mark.parametrize("filters", [None, "x", ["x"], [{}]])
def test_odd_questions_get_answers(filters: Any) -> None:
    content = {"ServiceCode": "AmazonEC2", "Filters": filters, "MaxResults": "many"}
    assert "PriceList" in told("pricing", "GetProducts", content)


def running(*types: str, lifecycle: str | None = None) -> list[Any]:
    return [SimpleNamespace(instance_type=one, lifecycle=lifecycle) for one in types]


@pytest.mark.parametrize(
    ("kind", "spot", "counted", "limit", "code"),
    [
        pytest.param("g6e.xlarge", False, [], 4, "", id="fits"),
        pytest.param("g6e.xlarge", False, running("g5.xlarge"), 7, "VcpuLimitExceeded", id="shared"),
        pytest.param("g6e.xlarge", False, running("p5.48xlarge"), 4, "", id="other-family"),
        pytest.param("g6e.xlarge", True, running("g5.xlarge"), 4, "", id="other-market"),
        pytest.param(
            "g6e.xlarge",
            True,
            running("g5.xlarge", lifecycle="spot"),
            7,
            "MaxSpotInstanceCountExceeded",
            id="spot",
        ),
        pytest.param("g99.huge", False, [], 0, "", id="unknown-type"),
    ],
)
def test_a_launch_beyond_its_quota_is_refused(
    kind: str, spot: bool, counted: list[Any], limit: int, code: str
) -> None:
    def check() -> None:
        quotas.check(kind, 1, spot=spot, counted=counted, limit=limit)

    if not code:
        return check()
    with pytest.raises(EC2ClientError) as refused:
        check()
    assert refused.value.code == code
    return None


@pytest.mark.parametrize(
    ("service", "attributes", "usage", "tiers"),
    [
        pytest.param(
            *("AWSQueueService", {"queueType": "Standard"}, "EUN1-Requests-Tier1", [0.0, 1e-6]), id="queue"
        ),
        pytest.param("AmazonS3", {"group": "S3-API-Tier2"}, "EUN1-Requests-Tier2", [1e-6], id="bucket"),
        pytest.param("AWSEvents", {"eventType": "Custom Event"}, "EUN1-Event-64K-Chunks", [2e-6], id="bus"),
        pytest.param(
            "AmazonCloudWatch", {"productFamily": "Alarm"}, "EUN1-CW:AlarmMonitorUsage", [0.5], id="alarm"
        ),
        pytest.param(*("AWSLambda", {"group": "AWS-Lambda-Requests"}, "EUN1-Request", [1e-6]), id="function"),
        pytest.param("AmazonEC2", {"group": "S3-API-Tier2"}, "", [], id="another-service"),
    ],
)
def test_services_have_products_of_awss_shape(
    service: str, attributes: dict[str, str], usage: str, tiers: list[float]
) -> None:
    wanted = {"regionCode": SPOT_REGION, **attributes}
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()]
    found = told("pricing", "GetProducts", {"ServiceCode": service, "Filters": filters})["PriceList"]
    if not usage:
        assert found == []
        return
    [one] = [json.loads(product) for product in found]
    assert one["product"]["attributes"]["usagetype"] == usage
    [term] = one["terms"]["OnDemand"].values()
    dimensions = sorted(term["priceDimensions"].values(), key=lambda tier: float(tier["beginRange"]))
    assert [float(tier["pricePerUnit"]["USD"]) for tier in dimensions] == tiers
