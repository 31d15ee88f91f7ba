"""Where results go: images and records to S3, announcements to EventBridge (never pixels, R-GIT-S3)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import ValidationError

from ..aws.errors import Call, code_of, mark
from ..errors import InvalidJob, RecordBroken, Refused
from ..jobspec.envelope import SOURCE
from ..jobspec.keys import failure_key, record_key
from .record import Record

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from pydantic import JsonValue

READY = "FluxImageReady"
FAILED = "FluxImageFailed"
JSON = "application/json"

EXISTS_OR_CHANGED = {"PreconditionFailed", "412"}
"""S3's answers to a conditional write that came second. A conflict (409) is none: another write or delete was
under way, nothing is decided, and S3 wants to be asked again.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"""
ABSENT = {"NoSuchKey", "404", "NotFound"}
FORBIDDEN = {"AccessDenied"}


@dataclass(frozen=True)
class Results:
    """One bucket and one event bus. AWS's errors pass through as botocore raises them."""

    s3: S3Client
    events: EventBridgeClient
    bucket: str
    prefix: str
    event_bus: str

    def record(self, job_id: str) -> Record | None:
        """The record of a job that was drawn before. Raises RecordBroken and Refused."""
        key = record_key(self.prefix, job_id)
        try:
            content = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            if code_of(error) in FORBIDDEN:
                # Without the right to list, S3 does not even tell that an object is absent.
                raise Refused(
                    "s3:GetObject",
                    f"S3 refuses to say whether s3://{self.bucket}/{key} is there: the worker's role needs "
                    "s3:GetObject on the objects and s3:ListBucket on the bucket",
                ) from error
            raise
        try:
            return Record.model_validate_json(content)
        except ValidationError as error:
            raise RecordBroken(
                f"s3://{self.bucket}/{key} is no record that this worker can read; move it away to have the "
                f"job drawn again: {error.errors()[0]['msg']}"
            ) from error

    def store(self, record: Record, images: Iterable[bytes]) -> Record:
        """Store the images, then their record.

        Gives back the record that stands in S3 then: where another worker was quicker, that is its own.
        """
        for key, image in zip(record.keys, images, strict=True):
            self.s3.put_object(Bucket=record.bucket, Key=key, Body=image, ContentType=record.content_type)
        key = record_key(self.prefix, record.job.id)
        body = record.model_dump_json(indent=2).encode()
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=JSON, IfNoneMatch="*")
        except ClientError as error:
            if code_of(error) not in EXISTS_OR_CHANGED:
                raise
            # Somebody's record, perhaps this very one: its first answer may have been lost on the way.
            there = self.record(record.job.id)
            if there is None:
                raise
            return there
        return record

    def remove(self, keys: Iterable[str]) -> None:
        """Remove images that no record names: another job with their id was recorded first."""
        for key in keys:
            self.s3.delete_object(Bucket=self.bucket, Key=key)

    def announce(self, record: Record, metadata: dict[str, JsonValue]) -> None:
        """Say where the images are. Raises ClientError where EventBridge does not take it."""
        self._put(READY, record.detail(record_key(self.prefix, record.job.id), metadata))

    def store_failure(self, error: InvalidJob, *, dead_lettered: bool = False) -> str | None:
        """Write down why a job is not drawn; gives back the key.

        None, and nothing is written, where the message carries no usable id, or a good record has that id.
        """
        if error.job_id is None or self._recorded(error.job_id):
            return None
        key = failure_key(self.prefix, error.job_id)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")  # no two failures of a job are alike
        failure = {"id": error.job_id, "reason": error.reason, "failed_at": now} | _dead(dead_lettered)
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=json.dumps(failure).encode(), ContentType=JSON)
        if self._recorded(error.job_id):  # meanwhile; whoever did it has looked for a failure already
            self.forget_failure(error.job_id)
            return None
        return key

    def _recorded(self, job_id: str) -> bool:
        try:
            # Not HeadObject, whose errors carry no code: expired credentials would look like a refusal.
            self.s3.get_object(Bucket=self.bucket, Key=record_key(self.prefix, job_id))["Body"].close()
        except ClientError as error:
            if code_of(error) in ABSENT:
                return False
            raise
        return True

    def forget_failure(self, job_id: str) -> None:
        """The job was drawn after all: what was written about an earlier failure goes."""
        self.s3.delete_object(Bucket=self.bucket, Key=failure_key(self.prefix, job_id))

    def announce_failure(
        self, error: InvalidJob, sidecar: str | None, *, dead_lettered: bool = False
    ) -> None:
        """Say that a job is not drawn, and why. Raises ClientError where EventBridge does not take it."""
        what = {"id": error.job_id, "bucket": self.bucket, "sidecar": sidecar, "reason": error.reason}
        self._put(FAILED, what | _dead(dead_lettered))

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
        # PutEvents answers 200 even where it took nothing.
        if answer["FailedEntryCount"]:
            entry = answer["Entries"][0]
            code, message = entry.get("ErrorCode", "unknown"), entry.get("ErrorMessage", "")
            refused: Any = {"Error": {"Code": code, "Message": message}}
            mark(refused, Call("events", "PutEvents", f"the event bus {self.event_bus}"))
            raise ClientError(refused, "PutEvents")


def _dead(dead_lettered: bool) -> dict[str, bool]:
    """Said only of jobs whose message goes to the dead-letter queue."""
    return {"dead_lettered": True} if dead_lettered else {}
