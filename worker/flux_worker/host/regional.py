"""boto3 clients for the region of the instance, which may differ from the queue's (R-REGIONS)."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from .imds import Imds, MetadataUnavailable

FAILURES = (BotoCoreError, ClientError, ResponseParserError, MetadataUnavailable)
"""What such a client's calls, and finding its region, raise where AWS does not answer as asked."""
_CONNECT_SECONDS, _READ_SECONDS = 2, 3  # ten seconds are left for such calls at the end


def client(service: str, region: str | None, imds: Imds) -> Any:
    """A client for `region`; None: as the instance's metadata say. Raises MetadataUnavailable."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    # A session of its own: the default one is not safe in several threads.
    session: Any = boto3.Session()
    return session.client(service, region_name=region or imds.get("placement/region"), config=config)
