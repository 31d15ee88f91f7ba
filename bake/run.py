"""One run of `bake`: its id, its directory and its progress."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bake.errors import UsageError
from bake.progress import Progress
from bake.redaction import redact


@dataclass(frozen=True)
class Run:
    """`directory` keeps the plan, the events, the logs of each step, the JUnit XML and the manifest.

    `leaks` names what this run created and could not remove, `kept` what it leaves on purpose.

    `renewals` move the expiry, as tags hold it, of what has its tags elsewhere than in EC2.
    """

    id: str
    directory: Path
    progress: Progress
    leaks: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    renewals: list[Callable[[str], object]] = field(default_factory=list)

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def keep(self, name: str, content: str | bytes) -> Path:
        """Write a file of the run directory; if that fails, note it and go on."""
        file = self.directory / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else redact(content).encode())
        except OSError as error:
            self.progress.note(f"{file} could not be written: {error.strerror or error}")
        return file


def check_place(parent: Path) -> None:
    """Raise UsageError unless runs can be kept in `parent`; called before anything is planned.

    A file is written, for a full disk may still take a folder. Nothing of that stays.
    """
    probe = parent / f".probe-{secrets.token_hex(4)}"
    made: list[Path] = []
    try:
        made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        (probe / "events.jsonl").write_bytes(b"x" * 65536)
    except OSError as error:
        hint = "--runs DIRECTORY names another place; nothing was started"
        reason = error.strerror or str(error)
        raise UsageError(f"cannot write runs to {parent.absolute()}: {reason}", hint=hint) from error
    finally:
        shutil.rmtree(probe, ignore_errors=True)
        with suppress(OSError):  # another bake may be there by now
            for folder in made:
                folder.rmdir()


def new(parent: Path, progress: Progress) -> Run:
    """Make `parent/<id>/`; the id sorts by time and is safe in AWS names, tags and file names."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    run = Run(run_id, parent / run_id, progress)
    run.logs.mkdir(parents=True)
    progress.record_to(run.directory / "events.jsonl")
    return run
