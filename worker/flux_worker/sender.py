"""Puts a job on the queue and waits for what a worker makes of it; needs no event bus."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from pydantic import ValidationError

from .aws.clients import Clients, patient
from .aws.errors import code_of, described
from .errors import JobFailed, Unavailable, WorkerError
from .jobs.queue import AWS_ERRORS
from .jobs.record import Record
from .jobs.results import ABSENT
from .jobspec.job import Job
from .jobspec.keys import claim_key, failure_key, record_key
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
            order = self._order(job) if self.places.queue_url.endswith(".fifo") else {}
            self.sqs.send_message(QueueUrl=self.places.queue_url, MessageBody=body, **order)  # type: ignore[arg-type]

    def _order(self, job: Job) -> dict[str, str]:
        """What a FIFO queue wants to know of each message.

        Each job is a group of its own, since the messages of a group wait for each other. A message that is
        like one of the last five minutes is dropped in silence: the same job is, but not after it failed.
        """
        content = job.model_dump_json().encode() + (self.failure(job) or b"")
        return {"MessageGroupId": job.id, "MessageDeduplicationId": hashlib.sha256(content).hexdigest()}

    def failure(self, job: Job) -> bytes | None:
        """What a worker wrote about why the job of this id cannot be drawn: JSON with a `reason`."""
        return self._read(failure_key(self.places.prefix, job.id))

    def wait(self, job: Job, seconds: float, old_failure: bytes | None, on_look: OnLook) -> Record:
        """The job's record, once there is one. Raises JobFailed, or WorkerError after `seconds`.

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
            raise _failed(job, failure)
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


def _failed(job: Job, content: bytes) -> JobFailed:
    try:
        failure = json.loads(content)
        reason = str(failure["reason"])
    except (ValueError, KeyError, TypeError):
        reason = content[:200].decode(errors="replace")
        failure = {"id": job.id, "reason": reason}
    if failure.get("dead_lettered") is True:
        return JobFailed(f"the job {job.id} went to the dead-letter queue: {reason}", failure)
    return JobFailed(f"the job {job.id} cannot be drawn: {reason}", failure)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """AWS's errors as one line that says what could not be done."""
    try:
        yield
    except AWS_ERRORS as error:
        raise Unavailable(f"{what}: {described(error)}") from error


def connect(places: PlaceSettings) -> Sender:
    """Clients for one queue and one bucket."""
    session, config = Clients.of(places).session, patient(5, 25, attempts=4)
    return Sender(session.client("sqs", config=config), session.client("s3", config=config), places)
