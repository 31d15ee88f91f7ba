"""moto's S3, with tags in CreateBucket, and whose policies the gateway evaluates.

A part of a large object is read alone: moto would read all of it for each part that is asked for.
"""

from __future__ import annotations

import mmap
from datetime import UTC
from typing import Any
from xml.etree import ElementTree

from flask import has_request_context, request
from moto.core import utils
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket, FakeKey, S3Backend, s3_backends
from moto.s3.responses import S3Response

_LARGE = 1 << 20  # bytes from which an object is worth a mapping


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


def _mapped(key: FakeKey) -> mmap.mmap:
    """An object's content, of which slices are read and nothing else."""
    with key.lock:
        key._value_buffer.flush()
        return mmap.mmap(key._value_buffer.fileno(), 0, access=mmap.ACCESS_READ)


def _read_parts_alone() -> None:
    """Let moto answer with parts of large objects without reading the rest."""
    whole: Any = FakeKey.value
    of_moto = S3Response._handle_range_header

    def value(self: FakeKey) -> bytes | mmap.mmap:
        part = has_request_context() and request.method == "GET" and request.headers.get("Range")
        if not part or self.contentsize < _LARGE:
            content: bytes = whole.fget(self)
            return content
        return _mapped(self)

    def handle(self: Any, asked: Any, headers: dict[str, Any], content: Any) -> Any:
        status, told, body = of_moto(self, asked, headers, content)
        return status, told, body[:] if isinstance(body, mmap.mmap) else body

    FakeKey.value = property(value, whole.fset)
    S3Response._handle_range_header = handle


def install() -> None:
    """Make moto build its S3 from LocalS3; to be called before the first request.

    moto's own look at a bucket's policy passes over the statements' conditions.
    """
    _read_parts_alone()
    FakeBucket.get_permission = lambda self, action, resource: PermissionResult.NEUTRAL
    s3_backends.backend = LocalS3
