"""One run of `bake`: its id, its directory, and what it tells people."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from bake.progress import Progress


@dataclass(frozen=True)
class Run:
    """`directory` keeps the plan, the events, the logs of each step, the JUnit XML and the manifest."""

    id: str
    directory: Path
    progress: Progress

    @property
    def logs(self) -> Path:
        return self.directory / "logs"


def new(parent: Path, progress: Progress) -> Run:
    """Make `parent/<id>/`; the id sorts by time and is safe in AWS names, tags and file names."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    run = Run(run_id, parent / run_id, progress)
    run.logs.mkdir(parents=True)
    progress.record_to(run.directory / "events.jsonl")
    return run
