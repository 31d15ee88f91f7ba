"""Store images and records in S3, and announce them on EventBridge, without pixels (R-GIT-S3)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import ValidationError

from ..aws.errors import Call, error_code, tag
from ..errors import CallRefused, CorruptRecord, InvalidJob
from ..jobspec.envelope import SOURCE
from ..jobspec.events import FAILED, READY, ImageFailed, StoredFailure
from ..jobspec.keys import failure_key, record_key
from .record import Record

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from pydantic import JsonValue

JSON = "application/json"

EXISTS_OR_CHANGED = {"PreconditionFailed", "412"}
"""S3's answers to a conditional write that came second. A conflict (409) is not one: another write or delete
is in progress, nothing is decided, and the write must be retried.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"""
ABSENT = {"NoSuchKey", "404", "NotFound"}
FORBIDDEN = {"AccessDenied"}


@dataclass(frozen=True)
class Results:
    """A bucket and an event bus. botocore's errors pass through."""

    s3: S3Client
    events: EventBridgeClient
    bucket: str
    prefix: str
    event_bus: str

    def record(self, job_id: str) -> Record | None:
        """The record of a finished job. Raises CorruptRecord and CallRefused."""
        key = record_key(self.prefix, job_id)
        try:
            content = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error_code(error) in ABSENT:
                return None
            if error_code(error) in FORBIDDEN:
                # Without the right to list, S3 does not say that an object is missing.
                raise CallRefused(
                    "s3:GetObject",
                    f"S3 does not say if s3://{self.bucket}/{key} exists: the worker's role needs "
                    "s3:GetObject on the objects and s3:ListBucket on the bucket",
                ) from error
            raise
        try:
            return Record.model_validate_json(content)
        except ValidationError as error:
            raise CorruptRecord(
                f"s3://{self.bucket}/{key} is not a record that this worker can read; move it away to run "
                f"the job again: {error.errors()[0]['msg']}"
            ) from error

    def store(self, record: Record, images: Iterable[bytes]) -> Record:
        """Store the images, then their record.

        Returns the record that is in S3 afterwards; it may be another worker's that was quicker.
        """
        for key, image in zip(record.keys, images, strict=True):
            self.s3.put_object(Bucket=record.bucket, Key=key, Body=image, ContentType=record.content_type)
        key = record_key(self.prefix, record.job.id)
        body = record.model_dump_json(indent=2).encode()
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=JSON, IfNoneMatch="*")
        except ClientError as error:
            if error_code(error) not in EXISTS_OR_CHANGED:
                raise
            # Perhaps this very record, if the answer to an earlier write was lost.
            there = self.record(record.job.id)
            if there is None:
                raise
            return there
        return record

    def remove(self, keys: Iterable[str]) -> None:
        """Remove images without a record: another job with their id was recorded first."""
        for key in keys:
            self.s3.delete_object(Bucket=self.bucket, Key=key)

    def announce(self, record: Record, metadata: dict[str, JsonValue]) -> None:
        """Send FluxImageReady. Raises ClientError if EventBridge does not accept it."""
        self._put(READY, record.detail(record_key(self.prefix, record.job.id), metadata))

    def store_failure(self, job_id: str, reason: str, *, dead_lettered: bool = False) -> str:
        """Store why a job failed; returns the key."""
        key = failure_key(self.prefix, job_id)
        body = json.dumps(StoredFailure.now(job_id, reason, dead_lettered=dead_lettered).content()).encode()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=JSON)
        return key

    def recorded(self, job_id: str) -> bool:
        """Whether a finished job has this id."""
        try:
            # Not HeadObject, whose errors carry no code: expired credentials would look like a refusal.
            self.s3.get_object(Bucket=self.bucket, Key=record_key(self.prefix, job_id))["Body"].close()
        except ClientError as error:
            if error_code(error) in ABSENT:
                return False
            raise
        return True

    def forget_failure(self, job_id: str) -> None:
        """Remove the stored failure of a job that succeeded later."""
        self.s3.delete_object(Bucket=self.bucket, Key=failure_key(self.prefix, job_id))

    def announce_failure(
        self, error: InvalidJob, sidecar: str | None, *, dead_lettered: bool = False
    ) -> None:
        """Send FluxImageFailed. Raises ClientError if EventBridge does not accept it."""
        failed = ImageFailed(
            id=error.job_id,
            bucket=self.bucket,
            sidecar=sidecar,
            reason=error.reason,
            dead_lettered=dead_lettered,
        )
        self._put(FAILED, failed.content())

    def _put(self, kind: str, detail: dict[str, Any]) -> None:
        answer = self.events.put_events(
            Entries=[
                {
                    "Source": SOURCE,
                    "DetailType": kind,
                    "Detail": json.dumps(detail),
                    "EventBusName": self.event_bus,
                }
            ]
        )
        # PutEvents answers 200 even if it accepted nothing.
        if answer["FailedEntryCount"]:
            entry = answer["Entries"][0]
            code, message = entry.get("ErrorCode", "unknown"), entry.get("ErrorMessage", "")
            refused: Any = {"Error": {"Code": code, "Message": message}}
            tag(refused, Call("events", "PutEvents", f"the event bus {self.event_bus}"))
            raise ClientError(refused, "PutEvents")
