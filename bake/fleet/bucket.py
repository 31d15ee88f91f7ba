"""The bucket of images and records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bake.fleet.request import Fleet
from bake.fleet.resource import KEPT, Resources, only_encrypted, resource

PARTS_KEPT = NONCURRENT_KEPT = 1  # days


def resources(fleet: Fleet) -> Resources:
    """The bucket with its policy; nothing where the profile names a bucket."""
    if "bucket" not in fleet.created:
        return {}
    closed = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    bucket = {
        "BucketName": fleet.profile.worker.bucket,
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}},
            ],
        },
        "PublicAccessBlockConfiguration": dict.fromkeys(closed, True),
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "LifecycleConfiguration": {"Rules": list(_rules(fleet.profile.fleet.keep_days))},
        "Tags": fleet.tags,
    }
    arn = fleet.subject.bucket(str(fleet.profile.worker.bucket))
    policy = only_encrypted("s3:*", [arn, f"{arn}/*"])
    return {
        "Images": {**resource("AWS::S3::Bucket", bucket), **KEPT},
        "ImagesPolicy": resource(
            "AWS::S3::BucketPolicy", {"Bucket": {"Ref": "Images"}, "PolicyDocument": policy}
        ),
    }


def _rules(days: int | None) -> Iterator[dict[str, Any]]:
    """What is deleted when.

    Images and records share one rule: a record is written after its images, so it never goes before them.
    Where a record is gone, its job may run again. Versioning is off; where somebody turns it on, each claim
    would leave versions behind (worker/README.md).
    """
    if days is not None:
        yield {"Id": "images-and-records", "Status": "Enabled", "ExpirationInDays": days}
    yield {
        "Id": "unfinished-uploads",
        "Status": "Enabled",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": PARTS_KEPT},
    }
    yield {
        "Id": "old-versions",
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_KEPT},
        "ExpiredObjectDeleteMarker": True,
    }
