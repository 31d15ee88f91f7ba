"""Quotas and prices, of which moto has none: tables of the local cloud's own.

The prices are round ones that nobody takes for AWS's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from moto.core import utils
from moto.core.responses import ActionResult
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses.spot_instances import SpotInstances
from werkzeug.wrappers import Response

from bake.localcloud.api import quotas
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.api.faults import errors
from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.errors import AwsError
from bake.localcloud.prices import SNAPSHOT_MONTH, SPOT_VCPU_HOUR, VCPU_HOUR, VOLUME_MONTH
from bake.localcloud.settings import ACCOUNT, REGION, SPOT_REGION

_VOLUMES = ("gp2", "gp3", "io1", "io2", "sc1", "st1", "standard")
_JSON = "application/x-amz-json-1.1"


def answer(requested: OperationRequest, vcpus: int) -> Response | None:
    """The answer about EC2's quotas, of `vcpus` each, or about prices; None where moto has one."""
    if requested.service not in {"servicequotas", "pricing"}:
        return None
    content = requested.content
    if requested.service == "pricing":
        return _answer(_products(content))
    if content.get("ServiceCode") != "ec2" or requested.operation not in {
        "GetServiceQuota",
        "ListServiceQuotas",
    }:
        return None
    told = [quotas.described(one, vcpus, requested.region, ACCOUNT) for one in quotas.QUOTAS]
    if requested.operation == "ListServiceQuotas":
        return _answer({"Quotas": told})
    found = [one for one in told if one["QuotaCode"] == content.get("QuotaCode")]
    if found:
        return _answer({"Quota": found[0]})
    call = Call("servicequotas", requested.operation, "json", {})
    missing = "The request failed because the specified quota does not exist."
    return errors.answer(call, AwsError("NoSuchResourceException", missing))


def _answer(content: Mapping[str, Any]) -> Response:
    return Response(json.dumps(content), content_type=_JSON)


def _products(content: Mapping[str, Any]) -> Mapping[str, Any]:
    filters, most = content.get("Filters"), content.get("MaxResults")
    given = [one for one in filters if isinstance(one, dict)] if isinstance(filters, list) else []
    wanted = [(str(one.get("Field")), str(one.get("Value"))) for one in given]
    most = most if isinstance(most, int) and 0 < most < 100 else 100
    found = [
        product
        for product in (_catalogue() if content.get("ServiceCode") == "AmazonEC2" else ())
        if all(product["attributes"].get(field) == value for field, value in wanted)
    ]
    return {"FormatVersion": "aws_v1", "PriceList": [_listed(product) for product in found[:most]]}


def _listed(product: Mapping[str, Any]) -> str:
    attributes = {key: value for key, value in product["attributes"].items() if key != "productFamily"}
    dimension = {"unit": product["unit"], "pricePerUnit": {"USD": f"{product['dollars']:.10f}"}}
    terms = {"OnDemand": {"local": {"priceDimensions": {"local": dimension}}}}
    family = product["attributes"]["productFamily"]
    told = {"productFamily": family, "attributes": attributes, "sku": "LOCAL"}
    return json.dumps({"product": told, "serviceCode": "AmazonEC2", "terms": terms})


def _catalogue() -> Iterator[Mapping[str, Any]]:
    """All products of the cloud's regions, each with its attributes and its price in dollars a `unit`."""
    for region in (SPOT_REGION, REGION):
        for name in INSTANCE_TYPES:
            attributes = {
                "productFamily": "Compute Instance",
                "regionCode": region,
                "instanceType": name,
                "vcpu": str(quotas.vcpus(name)),
                "operatingSystem": "Linux",
                "tenancy": "Shared",
                "preInstalledSw": "NA",
                "capacitystatus": "Used",
            }
            yield {"attributes": attributes, "unit": "Hrs", "dollars": VCPU_HOUR * quotas.vcpus(name)}
        for name in _VOLUMES:
            attributes = {"productFamily": "Storage", "regionCode": region, "volumeApiName": name}
            yield {"attributes": attributes, "unit": "GB-Mo", "dollars": VOLUME_MONTH}
        attributes = {
            "productFamily": "Storage Snapshot",
            "regionCode": region,
            "storageMedia": "Amazon S3",
        }
        yield {"attributes": attributes, "unit": "GB-Mo", "dollars": SNAPSHOT_MONTH}


def install() -> None:
    """Let moto's DescribeSpotPriceHistory tell this table's price, of now."""

    def describe_spot_price_history(self: Any) -> ActionResult:
        filters = self._filters_from_querystring()
        if zone := self._get_param("AvailabilityZone"):
            filters["availability-zone"] = [zone]
        products = self._get_param("ProductDescriptions", []) or filters.pop("product-description", [])
        known = "Linux/UNIX"
        offered = self.ec2_backend.describe_spot_price_history(self._get_param("InstanceTypes", []), filters)
        history = [
            {
                "InstanceType": one["InstanceType"],
                "ProductDescription": known,
                "SpotPrice": f"{SPOT_VCPU_HOUR * quotas.vcpus(one['InstanceType']):.6f}",
                "AvailabilityZone": one["Location"],
                "Timestamp": f"{utils.utcnow():%Y-%m-%dT%H:00:00.000Z}",
            }
            for one in (offered if not products or known in products else ())
        ]
        return ActionResult({"SpotPriceHistory": history})

    SpotInstances.describe_spot_price_history = describe_spot_price_history
