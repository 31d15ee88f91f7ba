"""Puts a job on the queue and waits for what a worker makes of it; needs no event bus."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from pydantic import ValidationError

from .errors import Unavailable, WorkerError
from .jobs.job import Job
from .jobs.keys import claim_key, failure_key, record_key
from .jobs.record import Record
from .jobs.results import ABSENT, code_of
from .jobs.sqs import AWS_ERRORS
from .settings import PlaceSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

LOOK_EVERY_SECONDS = 1.0

OnLook = Callable[[str], None]
"""Called before each look with the job's state in words."""


@dataclass(frozen=True)
class Sender:
    """One queue and the bucket that its workers write to."""

    sqs: SQSClient
    s3: S3Client
    places: PlaceSettings

    def drawn_before(self, job: Job) -> Record | None:
        """The record of this very job. Raises WorkerError where the id was used for another one."""
        record = self._record(job)
        if record and (others := record.differs(job)):
            raise WorkerError(
                f"{job.id} was drawn before with another {', '.join(others)}: choose another id"
            )
        return record

    def send(self, job: Job) -> None:
        """Put the job on the queue."""
        with _told(f"the job could not be put on {self.places.queue_url}"):
            body = job.model_dump_json(exclude_unset=True)
            self.sqs.send_message(QueueUrl=self.places.queue_url, MessageBody=body)

    def failure(self, job: Job) -> bytes | None:
        """What a worker wrote about why the job of this id cannot be drawn: JSON with a `reason`."""
        return self._read(failure_key(self.places.prefix, job.id))

    def wait(self, job: Job, seconds: float, old_failure: bytes | None, on_look: OnLook) -> Record:
        """The job's record, once there is one. Raises WorkerError when it failed, or after `seconds`.

        The last look comes after them, so that there is one in any case, however slow this machine is.
        """
        deadline = time.monotonic() + seconds
        while True:
            over = time.monotonic() >= deadline
            try:
                if record := self.drawn_before(job):
                    return record
                state = self._state(job, old_failure)
            except Unavailable as error:  # the job is on the queue: giving up now would not take it back
                state = str(error)
            on_look(state)
            if over:
                break
            time.sleep(LOOK_EVERY_SECONDS)
        where = f"s3://{self.places.bucket}/{record_key(self.places.prefix, job.id)}"
        raise WorkerError(
            f"no result within {seconds:g} s ({state}). "
            f"The job {job.id} stays where it is; its record will be {where}"
        )

    def _state(self, job: Job, old_failure: bytes | None) -> str:
        failure = self.failure(job)
        if failure and failure != old_failure:
            raise WorkerError(f"the job {job.id} cannot be drawn: {_reason(failure)}")
        claimed = self._read(claim_key(self.places.prefix, job.id)) is not None
        return "being drawn" if claimed else "on the queue"

    def image(self, key: str) -> bytes:
        """Download one of the images that a record names."""
        found = self._read(key)
        if found is None:
            raise WorkerError(f"s3://{self.places.bucket}/{key} is gone, or may not be read")
        return found

    def _record(self, job: Job) -> Record | None:
        key = record_key(self.places.prefix, job.id)
        content = self._read(key)
        try:
            return Record.model_validate_json(content) if content is not None else None
        except ValidationError:
            raise WorkerError(
                f"s3://{self.places.bucket}/{key} is no record of a job: choose another id"
            ) from None

    def _read(self, key: str) -> bytes | None:
        """An object's content; None where it is not there, or may not be read."""
        with _told(f"cannot look for s3://{self.places.bucket}/{key}"):
            try:
                return self.s3.get_object(Bucket=self.places.bucket, Key=key)["Body"].read()
            except ClientError as error:
                # Who may not list the bucket is told "denied" about what is not there.
                if code_of(error) in ABSENT | {"AccessDenied", "403"}:
                    return None
                raise


def _reason(failure: bytes) -> str:
    try:
        return str(json.loads(failure)["reason"])
    except (ValueError, KeyError, TypeError):
        return failure[:200].decode(errors="replace")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """AWS's errors as one line that says what could not be done."""
    try:
        yield
    except AWS_ERRORS as error:
        raise Unavailable(f"{what}: {error}") from error


def connect(places: PlaceSettings) -> Sender:
    """Clients for one queue and one bucket."""
    session = boto3.Session(region_name=places.region)
    config = Config(connect_timeout=5, read_timeout=25, retries={"mode": "standard", "total_max_attempts": 4})
    return Sender(session.client("sqs", config=config), session.client("s3", config=config), places)
