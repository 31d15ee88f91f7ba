"""The errors a person sees; none of them is ever shown as a traceback."""

from __future__ import annotations

from typing import Any

EXIT_FAILED = 1
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: starting again does not help until somebody changes something


class WorkerError(Exception):
    """Something went wrong that the user can understand and act on."""

    exit_code = EXIT_FAILED


class ConfigurationError(WorkerError):
    """The environment or the model cache is not what the worker needs."""

    exit_code = EXIT_CONFIG


class InvalidJob(WorkerError):
    """A job that can never be drawn. `job_id` is None where the message carries no usable id.

    `announce` is False where an event about it would come back as the next message, for ever.
    """

    def __init__(self, reason: str, *, job_id: str | None = None, announce: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.job_id = job_id
        self.announce = announce


class JobFailed(WorkerError):
    """A worker, or the queue, gave a job up; `failure` is what was written about it."""

    def __init__(self, message: str, failure: dict[str, Any]) -> None:
        super().__init__(message)
        self.failure = failure


class DuplicateId(InvalidJob):
    """Another job, with other parameters, was drawn under the same id; its record stays as it is."""


class Unavailable(WorkerError):
    """AWS answered, but did not do what was asked; it may later."""


class CorruptRecord(WorkerError):
    """What lies in S3 under a record's name is none."""


class ClaimHeld(WorkerError):
    """Another worker has the job; its claim ends in `seconds_left` unless it is renewed."""

    def __init__(self, seconds_left: float) -> None:
        super().__init__(f"another worker has this job, for {seconds_left:.0f} s at least")
        self.seconds_left = seconds_left


class LeaseLost(WorkerError):
    """The job is another worker's by now: its claim or its message is no longer this one's."""


class Interrupted(WorkerError):
    """The worker is to end before the job could be finished."""


class BadImage(WorkerError):
    """What the model drew is no picture: not finite, or one colour all over. It is never delivered."""


class CallRefused(WorkerError):
    """AWS refuses a call, and will until somebody changes a permission, a key or a place.

    `call` says which, such as "s3:PutObject"; the message says what for, and AWS's own words.
    """

    def __init__(self, call: str, message: str) -> None:
        super().__init__(message)
        self.call = call


class WorkerBroken(WorkerError):
    """This process can draw no more: a new one may."""
