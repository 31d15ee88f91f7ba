"""Signed URLs of the objects in the bucket of FLUX_STREAM, from the instance role's credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...aws.errors import describe, error_code
from ...host import regional
from ...host.imds import Imds
from .feed import SourceFailed

# Far longer than a load; a session that ends earlier ends the URL, and with it the second path.
_VALID_SECONDS = 3600


@dataclass(frozen=True)
class Place:
    """`s3://bucket/prefix`, as the setting has it."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str) -> Place:
        """Split a URI that the settings have checked."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return cls(bucket, prefix)

    def key(self, sha256: str) -> str:
        """The object that holds the content with this hash, as the bake put it there."""
        return f"{self.prefix}/{sha256}" if self.prefix else sha256

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class Signer:
    """Signs URLs for one bucket, in the bucket's own region. `region` is the instance's; None: ask it."""

    def __init__(self, place: Place, region: str | None) -> None:
        self._place = place
        try:
            client = regional.client("s3", region, Imds())
            own = _region_of(place.bucket, client)
            self._client = _signing(client, own)
        except regional.FAILURES as error:
            raise SourceFailed(f"{place}: {describe(error)}") from None

    def url(self, sha256: str) -> str:
        """A URL to get the content with this hash; a secret for as long as it is valid."""
        where = {"Bucket": self._place.bucket, "Key": self._place.key(sha256)}
        try:
            url: str = self._client.generate_presigned_url(
                "get_object", Params=where, ExpiresIn=_VALID_SECONDS
            )
        except regional.FAILURES as error:  # no credentials
            raise SourceFailed(f"{self._place}: {describe(error)}") from None
        return url


def _region_of(bucket: str, client: Any) -> str:
    """S3 tells a bucket's region to everybody, also with a refusal."""
    try:
        answer = client.head_bucket(Bucket=bucket)
    except regional.FAILURES as error:
        answer = getattr(error, "response", {})
        if not answer or error_code(error) in ("404", "NoSuchBucket"):
            raise
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region") or client.meta.region_name)


def _signing(client: Any, region: str) -> Any:
    import boto3
    from botocore.config import Config

    # S3 takes the older signatures, which are botocore's for URLs in some regions, not everywhere.
    config = client.meta.config.merge(Config(signature_version="s3v4"))
    return boto3.Session().client("s3", region_name=region, config=config)
