"""The products of the local cloud's price list, in the shape that AWS's has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from bake.localcloud import prices
from bake.localcloud.api import quotas
from bake.localcloud.settings import REGION, SPOT_REGION

_VOLUMES = ("gp2", "gp3", "io1", "io2", "sc1", "st1", "standard")
_MOST = 100
# What usage types of a region begin with.
_SHORT = {REGION: "EU", SPOT_REGION: "EUN1"}


@dataclass(frozen=True)
class _Product:
    """A product of a service; `free` is a first tier that costs nothing."""

    service: str
    family: str
    unit: str
    dollars: float
    attributes: Mapping[str, str]
    free: int = 0

    @property
    def all(self) -> Mapping[str, str]:
        """All that it can be found by."""
        return {"productFamily": self.family, **self.attributes}

    def listed(self) -> str:
        """As GetProducts has it: JSON in JSON."""
        told = {"productFamily": self.family, "attributes": self.attributes, "sku": "LOCAL"}
        terms = {"OnDemand": {"local": {"priceDimensions": dict(self._tiers())}}}
        return json.dumps({"product": told, "serviceCode": self.service, "terms": terms})

    def _tiers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """A free tier first, as AWS has them."""
        if self.free:
            yield "free", self._tier("0", str(self.free), 0)
        yield "local", self._tier(str(self.free), "Inf", self.dollars)

    def _tier(self, begin: str, end: str, dollars: float) -> Mapping[str, Any]:
        price = {"USD": f"{dollars:.10f}"}
        return {"unit": self.unit, "beginRange": begin, "endRange": end, "pricePerUnit": price}


def answer(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answer GetProducts."""
    filters, most = content.get("Filters"), content.get("MaxResults")
    given = [one for one in filters if isinstance(one, dict)] if isinstance(filters, list) else []
    wanted = [(str(one.get("Field")), str(one.get("Value"))) for one in given]
    most = most if isinstance(most, int) and 0 < most < _MOST else _MOST
    found = [
        product
        for product in _catalogue()
        if product.service == content.get("ServiceCode")
        and all(product.all.get(field) == value for field, value in wanted)
    ]
    return {"FormatVersion": "aws_v1", "PriceList": [product.listed() for product in found[:most]]}


def _catalogue() -> Iterator[_Product]:
    for region in (SPOT_REGION, REGION):
        yield from _instances(region)
        yield from _disks(region)
        yield from _requests(region)
        yield from _metrics(region)
        yield from _functions(region)
    for start, end in ((SPOT_REGION, REGION), (REGION, SPOT_REGION)):
        way = {"fromRegionCode": start, "toRegionCode": end, "transferType": "InterRegion Outbound"}
        usage = {"usagetype": f"{_SHORT[start]}-{_SHORT[end]}-AWS-Out-Bytes"}
        yield _Product("AWSDataTransfer", "Data Transfer", "GB", prices.TRANSFER, {**way, **usage})


def _instances(region: str) -> Iterator[_Product]:
    for name in INSTANCE_TYPES:
        attributes = {
            "regionCode": region,
            "instanceType": name,
            "vcpu": str(quotas.vcpus(name)),
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
        }
        hour = prices.VCPU_HOUR * quotas.vcpus(name)
        yield _Product("AmazonEC2", "Compute Instance", "Hrs", hour, attributes)


def _disks(region: str) -> Iterator[_Product]:
    for name in _VOLUMES:
        volume = {"regionCode": region, "volumeApiName": name}
        yield _Product("AmazonEC2", "Storage", "GB-Mo", prices.VOLUME_MONTH, volume)
    snapshot = {"regionCode": region, "storageMedia": "Amazon S3"}
    yield _Product("AmazonEC2", "Storage Snapshot", "GB-Mo", prices.SNAPSHOT_MONTH, snapshot)


def _requests(region: str) -> Iterator[_Product]:
    """What queues, buckets and buses cost."""

    def one(service: str, unit: str, dollars: float, usage: str, free: int = 0, **more: str) -> _Product:
        family = {"TimedStorage-ByteHrs": "Storage", "Event-64K-Chunks": "EventBridge"}
        named = {"regionCode": region, "usagetype": f"{_SHORT[region]}-{usage}", **more}
        return _Product(service, family.get(usage, "API Request"), unit, dollars, named, free)

    fifo = "FIFO (first-in, first-out)"
    queue, bucket, million = "AWSQueueService", "AmazonS3", 1_000_000
    yield one(queue, "Requests", prices.QUEUE_REQUEST, "Requests-Tier1", million, queueType="Standard")
    yield one(queue, "Requests", prices.FIFO_REQUEST, "Requests-FIFO-Tier1", million, queueType=fifo)
    yield one(bucket, "Requests", prices.PUT, "Requests-Tier1", group="S3-API-Tier1")
    yield one(bucket, "Requests", prices.GET, "Requests-Tier2", group="S3-API-Tier2")
    yield one(bucket, "GB-Mo", prices.BUCKET_MONTH, "TimedStorage-ByteHrs", volumeType="Standard")
    yield one("AWSEvents", "64K-Chunks", prices.EVENT, "Event-64K-Chunks", eventType="Custom Event")


def _metrics(region: str) -> Iterator[_Product]:
    for family, unit, dollars, usage in (
        ("Metric", "Metrics", prices.METRIC_MONTH, "CW:MetricMonitorUsage"),
        ("API Request", "Requests", prices.METRIC_CALL, "CW:Requests"),
        ("Alarm", "Alarms", prices.ALARM_MONTH, "CW:AlarmMonitorUsage"),
    ):
        named = {"regionCode": region, "usagetype": f"{_SHORT[region]}-{usage}"}
        yield _Product("AmazonCloudWatch", family, unit, dollars, named)


def _functions(region: str) -> Iterator[_Product]:
    for group, unit, dollars, usage in (
        ("AWS-Lambda-Requests", "Requests", prices.FUNCTION_REQUEST, "Request"),
        ("AWS-Lambda-Duration", "Lambda-GB-Second", prices.FUNCTION_TIME, "Lambda-GB-Second"),
    ):
        named = {"regionCode": region, "usagetype": f"{_SHORT[region]}-{usage}", "group": group}
        yield _Product("AWSLambda", "Serverless", unit, dollars, named)
