"""Errors that the command line shows as a message, never as a traceback."""

from __future__ import annotations

from typing import Any

EXIT_FAILED = 1
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: a restart does not help until somebody changes something


class WorkerError(Exception):
    """An error that the user can understand and act on."""

    exit_code = EXIT_FAILED


class ConfigurationError(WorkerError):
    """The environment or the model's files are wrong or incomplete."""

    exit_code = EXIT_CONFIG


class InvalidJob(WorkerError):
    """A job that can never run. `job_id` is None if the message has no usable id.

    `announce` is False if an event about it would come back as the next message, in an endless loop.
    """

    def __init__(self, reason: str, *, job_id: str | None = None, announce: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.job_id = job_id
        self.announce = announce


class JobFailed(WorkerError):
    """A worker rejected the job, or the queue dead-lettered it; `failure` is the stored failure."""

    def __init__(self, message: str, failure: dict[str, Any]) -> None:
        super().__init__(message)
        self.failure = failure


class DuplicateId(InvalidJob):
    """The id belongs to a finished job with other parameters, whose record stays as it is."""


class Unavailable(WorkerError):
    """A call to AWS failed and may succeed later."""


class CorruptRecord(WorkerError):
    """The S3 object under a record's key is not a valid record."""


class ClaimHeld(WorkerError):
    """Another worker holds the claim on the job, for `seconds_left` unless it renews it."""

    def __init__(self, seconds_left: float) -> None:
        super().__init__(f"another worker holds this job for at least {seconds_left:.0f} s")
        self.seconds_left = seconds_left


class LeaseLost(WorkerError):
    """This worker no longer holds the claim or the message: another one may have the job."""


class Interrupted(WorkerError):
    """The worker must stop before it can finish the job."""


class BadImage(WorkerError):
    """The model's output is not an image: not finite, or one colour all over. It is never delivered."""


class CallRefused(WorkerError):
    """AWS refuses a call until somebody changes a permission, a key or a resource.

    `call` names the action, such as "s3:PutObject"; the message has the purpose and AWS's own words.
    """

    def __init__(self, call: str, message: str) -> None:
        super().__init__(message)
        self.call = call


class WorkerBroken(WorkerError):
    """This process cannot generate images any more; a new one may."""
