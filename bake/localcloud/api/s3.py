"""moto's S3, with tags in CreateBucket, and whose policies the gateway evaluates."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from xml.etree import ElementTree

from flask import request
from moto.core import utils
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket, S3Backend, s3_backends


class LocalS3(S3Backend):  # type: ignore[misc]
    """The account's buckets."""

    # moto finds a service's URLs by the module of its backend's class.
    __module__ = S3Backend.__module__

    def create_bucket(self, bucket_name: str, region_name: str, **kwargs: Any) -> FakeBucket:
        """Create a bucket with the tags of its CreateBucketConfiguration, which moto drops.

        moto would stamp it by the host's clock.
        """
        bucket = super().create_bucket(bucket_name, region_name, **kwargs)
        bucket.creation_date = utils.utcnow().replace(tzinfo=UTC)
        if tags := bucket_tags(request.get_data()):
            self.put_bucket_tagging(bucket_name, tags)
        return bucket


def bucket_tags(body: bytes) -> dict[str, str]:
    """The tags in the body of a CreateBucket."""
    if not body:
        return {}
    root = ElementTree.fromstring(body)  # noqa: S314 - from the owner's own clients
    found = {}
    for tag in root.iterfind("{*}Tags/{*}Tag"):
        found[tag.findtext("{*}Key", "")] = tag.findtext("{*}Value", "")
    return found


def install() -> None:
    """Make moto build its S3 from LocalS3; to be called before the first request.

    moto's own look at a bucket's policy passes over the statements' conditions.
    """
    FakeBucket.get_permission = lambda self, action, resource: PermissionResult.NEUTRAL
    s3_backends.backend = LocalS3
