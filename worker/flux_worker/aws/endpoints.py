"""Where calls go: boto3 sends them to its own endpoint, whatever host a queue's URL names."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..settings import PlaceSettings, region_of

if TYPE_CHECKING:
    from .clients import Clients


def oddities(places: PlaceSettings, clients: Clients) -> list[str]:
    """What is odd about the queue's URL and the endpoint that boto3 uses, in words."""
    url, endpoint = urlsplit(places.queue_url), urlsplit(clients.sqs.meta.endpoint_url)
    found = []
    elsewhere = region_of(endpoint.hostname or "")
    if elsewhere and elsewhere != places.region:
        found.append(
            f"calls to SQS go to {endpoint.netloc} (AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL or a profile "
            f"says so), which is in {elsewhere}, but AWS_REGION is {places.region}"
        )
    if url.netloc != endpoint.netloc and not (_public(url.hostname) and _public(endpoint.hostname)):
        found.append(
            f"FLUX_QUEUE_URL names {url.netloc}, but calls to SQS go to {endpoint.netloc}: boto3 heeds "
            f"the path of the URL alone. If {url.netloc} is meant, such as a VPC or FIPS endpoint, set "
            f"AWS_ENDPOINT_URL_SQS={url.scheme}://{url.netloc}"
        )
    return found


def _public(host: str | None) -> bool:
    """Whether this is one of the names of SQS's public endpoint: today's, the older ones, dual stack."""
    first, *rest = (host or "").split(".")
    older = "queue" in {first, *rest[:1]} and host is not None and "amazonaws" in host
    return older or (first == "sqs" and region_of(host or "") is not None and "localhost" not in rest)
