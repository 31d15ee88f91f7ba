"""The names of a job's objects in S3.

`=` can't stand in an id, so no job's object ever has another job's name.
"""

from __future__ import annotations

from .job import Job


def record_key(prefix: str, job_id: str) -> str:
    """The record (sidecar) of a job that was drawn; follows from the id alone, so that it is always found."""
    return f"{prefix}{job_id}.json"


def failure_key(prefix: str, job_id: str) -> str:
    """Why a job can never be drawn."""
    return f"{prefix}{job_id}=failed.json"


def claim_key(prefix: str, job_id: str) -> str:
    """Who draws a job now."""
    return f"{prefix}{job_id}=claim"


def image_suffixes(job: Job) -> list[str]:
    """What follows the id in each image's name: `.png`, or `=1.png`, `=2.png` … where there are several."""
    if job.images == 1:
        return [f".{job.format}"]
    return [f"={number}.{job.format}" for number in range(1, job.images + 1)]


def image_keys(prefix: str, job: Job) -> list[str]:
    """One key an image."""
    return [f"{prefix}{job.s3_prefix}{job.id}{suffix}" for suffix in image_suffixes(job)]
