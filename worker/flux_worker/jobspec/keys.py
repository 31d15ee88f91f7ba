"""The S3 keys of a job's objects.

An id cannot contain `=`, so no job's object has a key of another job.
"""

from __future__ import annotations

from .job import Job


def record_key(prefix: str, job_id: str) -> str:
    """The record (sidecar) of a finished job; depends on the id only, so that it can be found by it."""
    return f"{prefix}{job_id}.json"


def failure_key(prefix: str, job_id: str) -> str:
    """Why a job failed."""
    return f"{prefix}{job_id}=failed.json"


def claim_key(prefix: str, job_id: str) -> str:
    """Which worker holds a job now."""
    return f"{prefix}{job_id}=claim"


def image_suffixes(job: Job) -> list[str]:
    """What follows the id in each image's key: `.png`, or `=1.png`, `=2.png` … for several images."""
    if job.images == 1:
        return [f".{job.format}"]
    return [f"={number}.{job.format}" for number in range(1, job.images + 1)]


def image_keys(prefix: str, job: Job) -> list[str]:
    """The key of each image."""
    return [f"{prefix}{job.s3_prefix}{job.id}{suffix}" for suffix in image_suffixes(job)]
