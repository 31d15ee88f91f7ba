"""Warn if boto3's endpoint for SQS, to which calls go, is not the host in the queue's URL."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..settings import QueueSettings, region_of

if TYPE_CHECKING:
    from .clients import Clients


def endpoint_warnings(settings: QueueSettings, clients: Clients) -> list[str]:
    """Warnings about the queue's URL and boto3's endpoint."""
    url, endpoint = urlsplit(settings.queue_url), urlsplit(clients.sqs.meta.endpoint_url)
    found = []
    elsewhere = region_of(endpoint.hostname or "")
    if elsewhere and elsewhere != settings.region:
        found.append(
            f"calls to SQS go to {endpoint.netloc} (set by AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL or a "
            f"profile), which is in {elsewhere}, but AWS_REGION is {settings.region}"
        )
    if url.netloc != endpoint.netloc and not (
        _is_public_endpoint(url.hostname) and _is_public_endpoint(endpoint.hostname)
    ):
        found.append(
            f"FLUX_QUEUE_URL names {url.netloc}, but calls to SQS go to {endpoint.netloc}: boto3 uses only "
            f"the path of the URL. To use {url.netloc}, such as a VPC or FIPS endpoint, set "
            f"AWS_ENDPOINT_URL_SQS={url.scheme}://{url.netloc}"
        )
    return found


def _is_public_endpoint(host: str | None) -> bool:
    """Whether this is a public SQS endpoint: a current, older or dual-stack name."""
    first, *rest = (host or "").split(".")
    older = "queue" in {first, *rest[:1]} and host is not None and "amazonaws" in host
    return older or (first == "sqs" and region_of(host or "") is not None and "localhost" not in rest)
