"""The errors a person sees; none of them is ever shown as a traceback."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: starting again does not help until somebody changes something


class WorkerError(Exception):
    """Something went wrong that the user can understand and act on."""

    exit_code = EXIT_FAILED


class ConfigurationError(WorkerError):
    """The environment or the model cache is not what the worker needs."""

    exit_code = EXIT_CONFIG


class InvalidJob(WorkerError):
    """A job that can never be drawn. `job_id` is None where the message carries no usable id."""

    def __init__(self, reason: str, *, job_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.job_id = job_id


class AnnouncementRefused(WorkerError):
    """EventBridge answered, but did not take the event."""
