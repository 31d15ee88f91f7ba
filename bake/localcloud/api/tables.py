"""Quotas and prices, of which moto has none: tables of the local cloud's own.

The prices are round ones that nobody takes for AWS's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moto.core import utils
from moto.core.responses import ActionResult
from moto.ec2.responses.spot_instances import SpotInstances
from werkzeug.wrappers import Response

from bake.localcloud.api import price_list, quotas
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.api.faults import errors
from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.errors import AwsError
from bake.localcloud.prices import SPOT_VCPU_HOUR
from bake.localcloud.settings import ACCOUNT

_JSON = "application/x-amz-json-1.1"


def answer(requested: OperationRequest, vcpus: int) -> Response | None:
    """The answer about EC2's quotas, of `vcpus` each, or about prices; None where moto has one."""
    if requested.service not in {"servicequotas", "pricing"}:
        return None
    content = requested.content
    if requested.service == "pricing":
        return _answer(price_list.answer(content))
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
