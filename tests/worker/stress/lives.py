"""Logs of workers, written by hand for the tests of the evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from .fleet import Life

LOST = "stopped working on the job: another worker took the job over"
FAULT = "the job failed, received 1 times: it comes back in 10 s"
ASIDE = "set aside, the message comes back in 30 s: AccessDenied"
PROVEN = "the warm-up succeeded: receiving again in 0 s"


def life(*said: tuple[float, str] | tuple[float, str, str], killed: float | None = None) -> Life:
    """A worker's log by the seconds of its lines; each is about the job `one`, or about that it names."""
    lines = [
        {"time": datetime.fromtimestamp(at, UTC).isoformat(), "message": message, "job": (*job, "one")[0]}
        for at, message, *job in said
    ]
    return Life(None, Path("log"), 0.0, lines, killed)  # type: ignore[arg-type]
