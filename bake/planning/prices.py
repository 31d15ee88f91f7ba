"""Prices, where an API tells them; none is kept in the code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bake.aws import Aws
from bake.planning.findings import Findings
from bake.planning.hardware import Types
from bake.profile import Profile

# EC2 keeps 90 days of spot prices: an older one is not of this world.
SPOT_MEMORY = timedelta(days=90)


@dataclass(frozen=True)
class Prices:
    """Dollars: an hour of the builder and of a worker, a GB-month of snapshot; None where nobody tells."""

    builder_hour: float | None
    worker_hour: float | None
    snapshot_month: float | None


def find(profile: Profile, types: Types, zone: str | None, aws: Aws, findings: Findings) -> Prices:
    """Ask for all prices, each once; the price list is asked again only if it answered."""
    asked = len(findings.unchecked)
    builder, worker = types.builder[0].name, types.worker[0].name
    hours: dict[str, float | None] = {}
    for name in dict.fromkeys((builder, worker)):
        if profile.builder.market == "spot":
            hours[name] = findings.ask(f"the spot price of {name}", partial(_spot, name, zone, aws))
        else:
            hours[name] = _listed("prices", partial(_on_demand, name, aws), aws, findings)
            if len(findings.unchecked) > asked:
                return Prices(None, None, None)
    snapshot = _listed("the price of snapshots", lambda: _snapshot(aws), aws, findings)
    return Prices(hours[builder], hours[worker], snapshot)


def _listed(what: str, call: Callable[[], float | None], aws: Aws, findings: Findings) -> float | None:
    """Ask the price list, which is one of the partition `aws`, and answers its credentials alone."""
    if aws.partition == "aws":
        return findings.ask(what, call)
    findings.not_checked(what, f"the price list knows none of {aws.partition}")
    return None


def _spot(name: str, zone: str | None, aws: Aws) -> float | None:
    history = aws.ec2.describe_spot_price_history(
        InstanceTypes=[name],  # type: ignore[list-item]
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.now(UTC),
        **({"AvailabilityZone": zone} if zone else {}),  # type: ignore[arg-type]
    )["SpotPriceHistory"]
    recent = [item for item in history if item["Timestamp"] > datetime.now(UTC) - SPOT_MEMORY]
    return max((float(item["SpotPrice"]) for item in recent), default=None)


def _on_demand(name: str, aws: Aws) -> float | None:
    return _product(
        aws,
        instanceType=name,
        operatingSystem="Linux",
        tenancy="Shared",
        preInstalledSw="NA",
        capacitystatus="Used",
    )


def _snapshot(aws: Aws) -> float | None:
    return _product(aws, productFamily="Storage Snapshot", storageMedia="Amazon S3")


def _product(aws: Aws, **attributes: str) -> float | None:
    """The dollars of the first product of EC2 in the builder's region with these attributes."""
    answer = aws.pricing.get_products(
        ServiceCode="AmazonEC2",
        Filters=[
            {"Type": "TERM_MATCH", "Field": field, "Value": value}
            for field, value in {"regionCode": aws.region, **attributes}.items()
        ],
        MaxResults=10,
    )
    prices = [_dollars(json.loads(product)) for product in answer.get("PriceList", [])]
    return next((price for price in prices if price), None)


def _dollars(product: Any) -> float | None:
    """https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html"""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            if price := float(dimension.get("pricePerUnit", {}).get("USD", 0)):
                return price
    return None
