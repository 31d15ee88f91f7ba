"""Clients that try each call once. They are kept: to make one takes longer than most calls."""

from __future__ import annotations

import functools
import json
from typing import Any

import boto3
from botocore.config import Config

KEPT = 48  # clients with models of EC2 hold megabytes each


def client(service: str, url: str, region: str, *credentials: str | None, **config: Any) -> Any:
    """A client of the API at `url`; the credentials are key, secret and, if any, token."""
    return _made(service, url, region, credentials, json.dumps(config, sort_keys=True))


@functools.lru_cache(KEPT)
def _made(service: str, url: str, region: str, credentials: tuple[str | None, ...], config: str) -> Any:
    key, secret, token = (*credentials, None)[:3]
    retries = {"mode": "standard", "total_max_attempts": 1}
    return boto3.client(
        service,  # type: ignore[call-overload,unused-ignore]
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        config=Config(**{"retries": retries, **json.loads(config)}),
    )
