"""Send a job to the queue and wait for its record in S3; needs no event bus."""

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

from .aws.clients import Clients, timeouts
from .aws.errors import describe, error_code
from .errors import JobFailed, Unavailable, WorkerError
from .jobs.claims import is_held
from .jobs.queue import AWS_ERRORS
from .jobs.record import Record
from .jobs.results import ABSENT
from .jobspec.job import Job
from .jobspec.keys import claim_key, failure_key, record_key
from .settings import QueueSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

LOOK_EVERY_SECONDS = 1.0

OnLook = Callable[[str], None]
"""Called after each poll with the job's state in words."""


@dataclass(frozen=True)
class Sender:
    """A queue and the bucket that its workers write to."""

    sqs: SQSClient
    s3: S3Client
    settings: QueueSettings

    def existing_record(self, job: Job) -> Record | None:
        """The record of this job, if it is done. Raises WorkerError if the id belongs to another job."""
        record = self._record(job)
        if record and (others := record.differs(job)):
            raise WorkerError(f"{job.id} exists with another {', '.join(others)}: choose another id")
        return record

    def send(self, job: Job) -> None:
        """Put the job on the queue."""
        with _report_as_unavailable(f"the job could not be sent to {self.settings.queue_url}"):
            body = job.model_dump_json(exclude_unset=True)
            fifo = self._fifo_parameters(job) if self.settings.queue_url.endswith(".fifo") else {}
            self.sqs.send_message(QueueUrl=self.settings.queue_url, MessageBody=body, **fifo)  # type: ignore[arg-type]

    def _fifo_parameters(self, job: Job) -> dict[str, str]:
        """The parameters that a FIFO queue needs.

        Each job is its own group, since messages of one group wait for each other. SQS silently drops a
        message that equals one of the last five minutes: the same job, but not one that failed in between.
        """
        content = job.model_dump_json().encode() + (self.failure(job) or b"")
        return {"MessageGroupId": job.id, "MessageDeduplicationId": hashlib.sha256(content).hexdigest()}

    def failure(self, job: Job) -> bytes | None:
        """The stored failure of the job with this id: JSON with a `reason`."""
        return self._read(failure_key(self.settings.prefix, job.id))

    def wait(self, job: Job, seconds: float, old_failure: bytes | None, on_look: OnLook) -> Record:
        """Wait for the job's record. Raises JobFailed, or WorkerError after `seconds`.

        It polls once more after the deadline, so at least once however slow this machine is.
        """
        deadline = time.monotonic() + seconds
        while True:
            over = time.monotonic() >= deadline
            try:
                if record := self.existing_record(job):
                    return record
                state = self._state(job, old_failure)
            except Unavailable as error:  # the job stays on the queue even if this gives up now
                state = str(error)
            on_look(state)
            if over:
                break
            time.sleep(LOOK_EVERY_SECONDS)
        where = f"s3://{self.settings.bucket}/{record_key(self.settings.prefix, job.id)}"
        raise WorkerError(
            f"no result within {seconds:g} s ({state}). "
            f"The job {job.id} stays on the queue; its record will be {where}"
        )

    def _state(self, job: Job, old_failure: bytes | None) -> str:
        failure = self.failure(job)
        if failure and failure != old_failure:
            raise _failed(job, failure)
        claim = self._read(claim_key(self.settings.prefix, job.id))
        claimed = claim is not None and is_held(claim)
        return "being drawn" if claimed else "on the queue"

    def image(self, key: str) -> bytes:
        """Download one of the images that a record names."""
        found = self._read(key)
        if found is None:
            raise WorkerError(f"s3://{self.settings.bucket}/{key} is missing or not readable")
        return found

    def _record(self, job: Job) -> Record | None:
        key = record_key(self.settings.prefix, job.id)
        content = self._read(key)
        try:
            return Record.model_validate_json(content) if content is not None else None
        except ValidationError:
            raise WorkerError(
                f"s3://{self.settings.bucket}/{key} is not a job record: choose another id"
            ) from None

    def _read(self, key: str) -> bytes | None:
        """An object's content; None if it does not exist or may not be read."""
        with _report_as_unavailable(f"cannot read s3://{self.settings.bucket}/{key}"):
            try:
                return self.s3.get_object(Bucket=self.settings.bucket, Key=key)["Body"].read()
            except ClientError as error:
                # Without the right to list the bucket, S3 answers "denied" for a missing object.
                if error_code(error) in ABSENT | {"AccessDenied", "403"}:
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
    return JobFailed(f"the job {job.id} failed: {reason}", failure)


@contextmanager
def _report_as_unavailable(what: str) -> Iterator[None]:
    """Raise AWS's errors as Unavailable, in one line that says what failed."""
    try:
        yield
    except AWS_ERRORS as error:
        raise Unavailable(f"{what}: {describe(error)}") from error


def connect(settings: QueueSettings) -> Sender:
    """Make the clients for the queue and the bucket of the settings."""
    session, config = Clients.from_settings(settings).session, timeouts(5, 25, attempts=4)
    return Sender(session.client("sqs", config=config), session.client("s3", config=config), settings)
