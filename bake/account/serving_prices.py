"""Ask what serving costs: requests, storage, transfer, metrics, and the hours of instances.

Which products these are: by the attributes of AWS's price list. In most regions a usage type begins with the
region's short name (`EUN1-Requests-Tier1`), in us-east-1 and for the oldest services it may not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from bake.account.answers import Unanswered
from bake.account.price_list import Price, dollars, products, usage
from bake.account.prices import on_demand_hour, spot_hour, volume_month
from bake.aws import Aws
from bake.background import start
from bake.profile import Profile


@dataclass(frozen=True)
class Product:
    """A product of the price list: `usage` ends its usage type, `unit` is what one price is for."""

    title: str
    unit: str
    service: str
    usage: str
    attributes: Mapping[str, str]


# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-billing.html
# A request has 64 KB. Those of us-east-1 end in RBP, those of other regions in Tier1.
_STANDARD = Product(
    "SQS request", "request", "AWSQueueService", r"Requests-(RBP|Tier1)", {"queueType": "Standard"}
)
_FIFO = Product(
    "SQS request (FIFO)",
    "request",
    "AWSQueueService",
    r"Requests-FIFO-(RBP|Tier1)",
    {"queueType": "FIFO (first-in, first-out)"},
)
_ALARM = Product(
    "alarm", "metric-month", "AmazonCloudWatch", "CW:AlarmMonitorUsage", {"productFamily": "Alarm"}
)
SERVICES: Mapping[str, Product] = MappingProxyType(
    {
        "put": Product("S3 PUT", "request", "AmazonS3", "Requests-Tier1", {"group": "S3-API-Tier1"}),
        "get": Product("S3 GET", "request", "AmazonS3", "Requests-Tier2", {"group": "S3-API-Tier2"}),
        "storage": Product(
            "S3 Standard",
            "GB-month",
            "AmazonS3",
            "TimedStorage-ByteHrs",
            {"productFamily": "Storage", "volumeType": "Standard"},
        ),
        "event": Product("event", "64 KB", "AWSEvents", "Event-64K-Chunks", {"eventType": "Custom Event"}),
        "alarm": _ALARM,
    }
)
"""By name: what is used where queue, bucket and bus are."""
BESIDE_INSTANCES: Mapping[str, Product] = MappingProxyType(
    {
        "metric": Product(
            "custom metric", "month", "AmazonCloudWatch", "CW:MetricMonitorUsage", {"productFamily": "Metric"}
        ),
        "metric-call": Product(
            "PutMetricData", "request", "AmazonCloudWatch", "CW:Requests", {"productFamily": "API Request"}
        ),
        "instances-alarm": _ALARM,
        "function": Product(
            "Lambda request", "request", "AWSLambda", "Request", {"group": "AWS-Lambda-Requests"}
        ),
        "function-time": Product(
            "Lambda time", "GB-second", "AWSLambda", "Lambda-GB-Second", {"group": "AWS-Lambda-Duration"}
        ),
    }
)
"""By name: what is used where the instances are."""
TRANSFER = Product(
    "transfer between regions",
    "GB",
    "AWSDataTransfer",
    "AWS-Out-Bytes",
    {"transferType": "InterRegion Outbound"},
)


@dataclass(frozen=True)
class Hour:
    """Dollars of an instance's hour: on demand, and the highest of the region's zones on the spot market."""

    on_demand: Price
    spot: Price


@dataclass(frozen=True)
class ServingPrices:
    """What serving costs in a profile's regions, in dollars a unit of each product, by name.

    `hours` are those of the worker's types, `volume` is a GB-month of the root volume's type.
    """

    region: str
    worker_region: str
    asked: datetime
    units: Mapping[str, Price]
    titles: Mapping[str, Product]
    hours: Mapping[str, Hour]
    volume: Price


def products_of(profile: Profile) -> Mapping[str, Product]:
    """All products that serving a profile's queue needs, by name; `transfer` only between two regions."""
    fifo = (profile.worker.queue or "").endswith(".fifo")
    apart = profile.builder.region != profile.worker.region
    found = {"queue": _FIFO if fifo else _STANDARD, **SERVICES, **BESIDE_INSTANCES}
    return {**found, "transfer": TRANSFER} if apart else found


def ask_serving_prices(profile: Profile, aws: Aws) -> ServingPrices:
    """Ask for all prices, side by side; one that gets no answer hides no other."""
    there = products_of(profile)
    units = {name: start(lambda name=name, one=one: _unit(name, one, aws)) for name, one in there.items()}  # type: ignore[misc]
    hours = {
        name: (
            start(lambda name=name: on_demand_hour(name, aws)),  # type: ignore[misc]
            start(lambda name=name: spot_hour(name, None, aws)),  # type: ignore[misc]
        )
        for name in profile.worker_types
    }
    volume = start(lambda: volume_month(profile.root_volume.type, aws))
    return ServingPrices(
        region=aws.region,
        worker_region=aws.worker_region,
        asked=aws.now(),
        units=_results(units),
        titles=there,
        hours={name: Hour(first.result(), second.result()) for name, (first, second) in hours.items()},
        volume=volume.result(),
    )


def _results(asked: Mapping[str, Future[Price]]) -> Mapping[str, Price]:
    return {name: answer.result() for name, answer in asked.items()}


def _unit(name: str, product: Product, aws: Aws) -> Price:
    """Dollars of a unit, in the region where it is used."""
    if name == "transfer":
        where = {"fromRegionCode": aws.region, "toRegionCode": aws.worker_region}
    else:
        where = {"regionCode": aws.region if name in BESIDE_INSTANCES else aws.worker_region}
    found = products(aws, product.service, **where, **product.attributes)
    if isinstance(found, Unanswered):
        return found
    named = re.compile(rf"(.*-)?{product.usage}")
    return next((price for one in found if named.fullmatch(usage(one)) and (price := dollars(one))), None)
