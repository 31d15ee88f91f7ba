"""Clients that try each call once. They are kept: to make one takes longer than most calls."""

from __future__ import annotations

import functools
from typing import Any

import boto3
from botocore.config import Config

KEPT = 48  # clients with models of EC2 hold megabytes each


def client(service: str, url: str, region: str, *credentials: str | None, **config: Any) -> Any:
    """A client of the API at `url`; the credentials are key, secret and, if any, token."""
    return _made(service, url, region, credentials, _Settings(config))


class _Settings(dict[str, Any]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


@functools.lru_cache(KEPT)
def _made(service: str, url: str, region: str, credentials: tuple[str | None, ...], config: _Settings) -> Any:
    key, secret, token = (*credentials, None)[:3]
    retries = {"mode": "standard", "total_max_attempts": 1}
    return boto3.client(
        service,  # type: ignore[call-overload,unused-ignore]
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        config=Config(**{"retries": retries, **config}),
    )
