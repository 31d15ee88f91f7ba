"""The IAM actions that S3's operations need, and the resources they need them on.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote
from xml.etree import ElementTree

from bake.localcloud.api.access.needs import Context, Need
from bake.localcloud.api.access.refusals import Refused

# Operations whose action has another name.
_ACTIONS: Mapping[str, str] = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeleteObjects": "DeleteObject",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycle": "GetLifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetObjectAttributes": "GetObject",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListParts": "ListMultipartUploadParts",
    "PutBucketAccelerateConfiguration": "PutAccelerateConfiguration",
    "PutBucketCors": "PutBucketCORS",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycle": "PutLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "SelectObjectContent": "GetObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
# Actions that have another name for a version of an object.
_VERSIONED = {"GetObject", "DeleteObject", "GetObjectAcl", "GetObjectTagging"}
_LARGEST_LIST = 4 << 20


def needed(
    operation: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> Iterator[Need]:
    """What an operation needs; `headers` are those that start with x-amz-, in small letters."""
    action = _ACTIONS.get(operation, operation)
    if operation == "DeleteObjects":
        for deleted, versioned in _listed(body):
            yield Need(f"s3:{action}{'Version' if versioned else ''}", _arn(bucket, deleted))
        return
    if operation == "CreateBucket":
        yield from _bucket(bucket, body)
        return
    if "versionId" in query and action in _VERSIONED:
        action += "Version"
    yield Need(f"s3:{action}", _arn(bucket, key), _prefix(action, query))
    if action == "PutObject":
        if "x-amz-tagging" in headers:
            yield Need("s3:PutObjectTagging", _arn(bucket, key))
        if any(name == "x-amz-acl" or name.startswith("x-amz-grant-") for name in headers):
            yield Need("s3:PutObjectAcl", _arn(bucket, key))
    if source := headers.get("x-amz-copy-source"):
        path, _, version = unquote(source).partition("?versionId=")
        action = "s3:GetObjectVersion" if version else "s3:GetObject"
        yield Need(action, f"arn:aws:s3:::{path.lstrip('/')}")


def _prefix(action: str, query: Mapping[str, str]) -> Context:
    given = {f"s3:{name}": (query[name],) for name in ("prefix", "delimiter") if name in query}
    return given if action.startswith("ListBucket") else {}


def _bucket(bucket: str, body: bytes) -> Iterator[Need]:
    """A bucket that is created with tags needs the right to tag it, too.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
    """
    root = _xml(body, "the configuration of the bucket") if body else None
    listed = root.iterfind("{*}Tags/{*}Tag") if root is not None else []
    tags = {tag.findtext("{*}Key", ""): (tag.findtext("{*}Value", ""),) for tag in listed}
    context: dict[str, tuple[str, ...]] = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    if tags:
        context["aws:TagKeys"] = tuple(sorted(tags))
    yield Need("s3:CreateBucket", _arn(bucket, ""), context)
    if tags:
        yield Need("s3:TagResource", _arn(bucket, ""), context)


def _arn(bucket: str, key: str) -> str:
    if not bucket:
        return "*"
    return f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"


def _listed(body: bytes) -> list[tuple[str, bool]]:
    """The keys of a DeleteObjects request, and whether a version is named. Refused if it is malformed."""
    root = _xml(body, "the list of objects to delete")
    found = root.findall("{*}Object")
    if not found:
        raise Refused("request", "the list of objects to delete is empty")
    return [(one.findtext("{*}Key", ""), one.findtext("{*}VersionId") is not None) for one in found]


def _xml(body: bytes, what: str) -> ElementTree.Element:
    if len(body) > _LARGEST_LIST or b"<!" in body:
        raise Refused("request", f"{what} is no such XML")
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - without declarations there is nothing to expand
    except ElementTree.ParseError as error:
        raise Refused("request", f"{what} is no XML") from error
