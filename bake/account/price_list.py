"""Ask the AWS Price List for products, and read what one costs.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-service-price-list-file-for-services.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bake.account.answers import Unanswered, ask
from bake.aws import Aws

Price = float | None | Unanswered
"""Dollars of one unit; None where the list has no such product."""

MOST = 100  # products of one answer


def products(aws: Aws, service: str, **attributes: str) -> list[Any] | Unanswered:
    """The products of a service with these attributes: at most a hundred, so name enough of them.

    The price list belongs to the partition `aws`, and answers credentials of that partition alone.
    """
    if aws.partition != "aws":
        return Unanswered(f"the price list knows none of {aws.partition}")
    answer = ask(
        lambda: aws.pricing.get_products(
            ServiceCode=service,
            Filters=[
                {"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in attributes.items()
            ],
            MaxResults=MOST,
        )
    )
    if isinstance(answer, Unanswered):
        return answer
    return [json.loads(product) for product in answer.get("PriceList", [])]


def usage(product: Any) -> str:
    """The product's usage type; in most regions it begins with the region's short name."""
    return str(product.get("product", {}).get("attributes", {}).get("usagetype", ""))


def dollars(product: Any) -> float | None:
    """Dollars of a unit in the first tier that is not free; None if there is none."""
    tiers = [(float(one.get("beginRange", 0) or 0), _usd(one)) for one in _dimensions(product)]
    return next((price for _, price in sorted(tiers) if price), None)


def _dimensions(product: Any) -> Iterator[Mapping[str, Any]]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        yield from term.get("priceDimensions", {}).values()


def _usd(dimension: Mapping[str, Any]) -> float:
    return float(dimension.get("pricePerUnit", {}).get("USD", 0))
