"""What a run means to do and what came of it, written so that a bake that was cut can go on.

`journal.jsonl` is evidence, and stays. `resume.jsonl` is what going on needs: the results of finished steps,
and the key that logs in to the builder. It is the one place where a bake writes a secret to a disk: only its
owner can read it, and it goes when the run ends.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bake.errors import UsageError
from bake.redaction import redact_all

JOURNAL, MEMORY = "journal.jsonl", "resume.jsonl"
TAKE_OVER = "take over"  # the step that a resumed run begins with


class Lines:
    """A file of JSON objects, one a line, each on the disk before the next thing is done.

    The first line must be written, or nothing is started. If a later one can't be, `lost` is told once: the
    tags of what was created are the truth, and the bake goes on.
    """

    def __init__(self, file: Path | None, mode: int, lost: Callable[[str], None] = lambda text: None) -> None:
        self.file = file
        self._mode = mode
        self._lost = lost
        self._lock = threading.Lock()
        self._whole = False  # whether the file ends with a whole line

    def begin(self, entry: dict[str, Any]) -> None:
        """Write the first line of this attempt; UsageError if that fails."""
        try:
            self._append(entry)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"{self.file} could not be written: {reason}",
                hint="a bake that can't note what it creates does not start; --runs names another place",
            ) from error

    def write(self, entry: dict[str, Any]) -> None:
        """Write one more line, if that is possible."""
        try:
            self._append(entry)
        except OSError as error:
            with self._lock:  # other threads may fail at the same moment
                lost, self.file = self.file, None
            if lost is not None:
                self._lost(
                    f"no more is written to {lost}: {error.strerror or error}; the tags in AWS are kept"
                )

    def _append(self, entry: dict[str, Any]) -> None:
        with self._lock:
            if self.file is None:
                return
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, self._mode)
            try:
                line = f"{'' if self._whole else _end_of_torn(handle)}{json.dumps(entry)}\n".encode()
                if os.write(handle, line) < len(line):
                    raise OSError(28, os.strerror(28))  # ENOSPC: the line is torn, and skipped when read
                os.fsync(handle)
                self._whole = True
            finally:
                os.close(handle)


def _end_of_torn(handle: int) -> str:
    """A line's end if the last line has none: the machine died, or its disk was full, as it was written."""
    size = os.fstat(handle).st_size
    return "\n" if size and os.pread(handle, 1, size - 1) != b"\n" else ""


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The entries of a file; a line that was torn when the machine died is left out."""
    found = []
    with suppress(FileNotFoundError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                if isinstance(entry := json.loads(line), dict):
                    found.append(entry)
    return found


class Journal:
    """The journal of a run: an intention before each creation, its outcome after it."""

    def __init__(self, directory: Path | None, lost: Callable[[str], None] = lambda text: None) -> None:
        self._lines = Lines(directory and directory / JOURNAL, 0o644, lost)

    def begin(self, event: str, **facts: Any) -> None:
        """Write what this attempt is about; UsageError if that fails."""
        self._lines.begin(_entry(event, facts))

    def write(self, event: str, **facts: Any) -> None:
        """Write one event; no secret gets in."""
        self._lines.write(_entry(event, facts))


def _entry(event: str, facts: dict[str, Any]) -> dict[str, Any]:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return dict(redact_all({"at": at, "event": event, **facts}))


class Memory:
    """What a resumed run takes over: the results of finished steps, by name."""

    def __init__(self, directory: Path | None, lost: Callable[[str], None] = lambda text: None) -> None:
        self._lines = Lines(directory and directory / MEMORY, 0o600, lost)
        self.values: dict[str, Any] = {}

    @classmethod
    def read(cls, directory: Path, lost: Callable[[str], None] = lambda text: None) -> Memory:
        """The memory that an earlier attempt has left."""
        memory = cls(directory, lost)
        memory.values = {str(one["name"]): one["value"] for one in read_lines(directory / MEMORY)}
        return memory

    def put(self, name: str, value: Any) -> None:
        """Remember a JSON value."""
        self.values[name] = value
        self._lines.write({"name": name, "value": value})

    def forget(self) -> None:
        """Remove the file: the run has ended, and nothing is to be resumed."""
        if self._lines.file is not None:
            with suppress(OSError):
                self._lines.file.unlink()


def thing(what: str) -> str:
    """Kind and id of what an entry is about, without the name: who takes a thing over may not know that."""
    return what.partition(" (")[0]


@dataclass(frozen=True)
class Record:
    """What the journal of one run says. `begun` has the facts of its first line."""

    directory: Path
    entries: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        """The record of a run; None if the directory has none."""
        entries = read_lines(directory / JOURNAL)
        return cls(directory, tuple(entries)) if entries and entries[0]["event"] == "run" else None

    @property
    def id(self) -> str:
        return self.directory.name

    @property
    def begun(self) -> dict[str, Any]:
        return self.entries[0]

    @property
    def attempt(self) -> int:
        """How often it was started: 1, and one more for each `bake resume`."""
        return sum(entry["event"] in ("run", "resumed") for entry in self.entries)

    @property
    def ended(self) -> str | None:
        """How it ended; None if it was cut, or still goes on."""
        last = next((one for one in reversed(self.entries) if one["event"] in ("ended", "resumed")), None)
        return str(last["outcome"]) if last and last["event"] == "ended" else None

    @property
    def step(self) -> str:
        """The last step of the bake that it began; taking over is none."""
        steps = [str(entry["step"]) for entry in self.entries if entry["event"] == "step"]
        return next((step for step in reversed(steps) if step != TAKE_OVER), "")

    @property
    def expires(self) -> datetime | None:
        """When its lease ends, as far as it could write that; None if it never had one."""
        told = [entry["expires"] for entry in self.entries if "expires" in entry]
        return datetime.fromisoformat(told[-1]) if told else None

    def held(self) -> list[str]:
        """What it created, and has neither removed nor kept on purpose; what AWS has is in the tags."""
        found: dict[str, str] = {}
        for entry in self.entries:
            if entry["event"] == "created":
                found[thing(entry["what"])] = f"{entry['kind']} {entry['id']}"
            elif entry["event"] in ("removed", "kept"):
                found.pop(thing(entry["what"]), None)
        return list(found.values())
