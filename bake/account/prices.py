"""Ask AWS for prices; the code has none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bake.account.answers import Unanswered, ask
from bake.aws import Aws
from bake.profile import Profile

# EC2 keeps 90 days of spot prices: an older one is not of this world.
SPOT_MEMORY = timedelta(days=90)

Price = float | None | Unanswered


@dataclass(frozen=True)
class PriceFacts:
    """Dollars: an hour of each type, a GB-month of snapshot. None where the API knows no price.

    `block` and `block_list` are a GetSnapshotBlock and a ListSnapshotBlocks, where the image is attested.
    A price list that did not answer is not asked again: then later types are missing in `hours`.
    """

    hours: Mapping[str, Price] = field(default_factory=dict)
    snapshot: Price = None
    block: Price = None
    block_list: Price = None


def ask_prices(profile: Profile, zone: Callable[[], str | None], aws: Aws) -> PriceFacts:
    """Ask for the first types that bake and work, and for snapshots.

    `zone` waits for the subnet's zone; it is called for spot prices alone.
    """
    hours: dict[str, Price] = {}
    for name in dict.fromkeys((profile.builder.types[0], profile.worker_types[0])):
        if profile.builder.market == "spot":
            hours[name] = spot_hour(name, zone(), aws)
        else:
            hours[name] = on_demand_hour(name, aws)
            if isinstance(hours[name], Unanswered):
                return PriceFacts(hours)
    if not profile.attest:
        return PriceFacts(hours, snapshot_month(aws))
    return PriceFacts(hours, snapshot_month(aws), *direct_reads(aws))


def spot_hour(name: str, zone: str | None, aws: Aws) -> Price:
    """Dollars of an hour on the spot market; the zone's, or the region's highest."""
    history = ask(
        lambda: aws.ec2.describe_spot_price_history(
            InstanceTypes=[name],  # type: ignore[list-item]
            ProductDescriptions=["Linux/UNIX"],
            StartTime=datetime.now(UTC),
            **({"AvailabilityZone": zone} if zone else {}),  # type: ignore[arg-type]
        )["SpotPriceHistory"]
    )
    if isinstance(history, Unanswered):
        return history
    recent = [item for item in history if item["Timestamp"] > datetime.now(UTC) - SPOT_MEMORY]
    return max((float(item["SpotPrice"]) for item in recent), default=None)


def on_demand_hour(name: str, aws: Aws) -> Price:
    """Dollars of an hour on demand."""
    return _product(
        aws,
        instanceType=name,
        operatingSystem="Linux",
        tenancy="Shared",
        preInstalledSw="NA",
        capacitystatus="Used",
    )


def volume_month(kind: str, aws: Aws) -> Price:
    """Dollars of a GB-month of volumes of a type; IOPS and throughput that are bought beside it cost more."""
    return _product(aws, productFamily="Storage", volumeApiName=kind)


def snapshot_month(aws: Aws) -> Price:
    """Dollars of a GB-month of snapshots."""
    return _product(aws, productFamily="Storage Snapshot", storageMedia="Amazon S3")


def direct_reads(aws: Aws) -> tuple[Price, Price]:
    """Dollars of one block, and of one list of blocks, by the EBS direct APIs."""
    found = _products(aws, productFamily="EBS direct API Requests")
    if isinstance(found, Unanswered):
        return found, found

    def of(what: str) -> Price:
        """Its usage type ends so; what it begins with is the region's."""
        named = (one for one in found if _usage(one).endswith(f"EBS:directAPI.snapshot.{what}"))
        return next((price for one in named if (price := _dollars(one))), None)

    return of("Get"), of("List")


def _usage(product: Any) -> str:
    return str(product.get("product", {}).get("attributes", {}).get("usagetype", ""))


def _product(aws: Aws, **attributes: str) -> Price:
    """The dollars of the first product with these attributes that has a price."""
    found = _products(aws, **attributes)
    if isinstance(found, Unanswered):
        return found
    return next((price for one in found if (price := _dollars(one))), None)


def _products(aws: Aws, **attributes: str) -> list[Any] | Unanswered:
    """The products of EC2 in the builder's region with these attributes.

    The price list belongs to the partition `aws`, and answers credentials of that partition alone.
    """
    if aws.partition != "aws":
        return Unanswered(f"the price list knows none of {aws.partition}")
    answer = ask(
        lambda: aws.pricing.get_products(
            ServiceCode="AmazonEC2",
            Filters=[
                {"Type": "TERM_MATCH", "Field": field, "Value": value}
                for field, value in {"regionCode": aws.region, **attributes}.items()
            ],
            MaxResults=10,
        )
    )
    if isinstance(answer, Unanswered):
        return answer
    return [json.loads(product) for product in answer.get("PriceList", [])]


def _dollars(product: Any) -> float | None:
    """https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html"""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            if price := float(dimension.get("pricePerUnit", {}).get("USD", 0)):
                return price
    return None
