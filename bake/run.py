"""One run of `bake`: its id, its directory and its progress."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from bake.errors import UsageError
from bake.journal import Journal, Memory, Record
from bake.progress import Progress
from bake.redaction import redact

T = TypeVar("T")
LOCK = "lock"  # held by the process that bakes
PATIENCE = 1.0  # seconds: `bake runs` holds it for a moment to see who does


def no_lease() -> datetime:
    """A run without a lease creates nothing, since it could not say until when that may be needed."""
    raise RuntimeError("nothing is created without a lease")


@dataclass
class Run:
    """`directory` keeps the plan, the events, the logs of each step, facts, and the report made of them.

    `leaks` names what this run created and could not remove, `kept` what it leaves on purpose. `attempt`
    is 1, and one more each time the run is resumed. With `exclusive`, no other bake of the profile may go on.

    `renewals` move the expiry, as tags hold it, of what has its tags elsewhere than in EC2; `on_builder` that
    of the builder itself, while there is a session. `after_report` are called with the report once its
    files are written. `expires` is the expiry of what is created now; the
    lease sets it.
    """

    id: str
    directory: Path
    progress: Progress
    leaks: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    journal: Journal = field(default_factory=lambda: Journal(None))
    memory: Memory = field(default_factory=lambda: Memory(None))
    attempt: int = 1
    exclusive: bool = False
    renewals: list[Callable[[str], object]] = field(default_factory=list)
    on_builder: list[Callable[[str], object]] = field(default_factory=list)
    expires: Callable[[], datetime] = no_lease
    after_report: list[Callable[[Any], None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the names of all that this attempt creates begin with; those of removed things stay taken."""
        return f"bake-{self.id}" if self.attempt == 1 else f"bake-{self.id}-{self.attempt}"

    def recalls(self, name: str) -> bool:
        """Whether an earlier attempt finished a step."""
        return name in self.memory.values

    def recall(self, name: str, kind: Any) -> Any:
        """The result of a step that an earlier attempt finished; raises KeyError if there is none."""
        from pydantic import TypeAdapter

        return TypeAdapter(kind).validate_json(json.dumps(self.memory.values[name]))

    def once(self, name: str, kind: Any, work: Callable[[], T]) -> T:
        """Do a step of the bake, unless an earlier attempt finished it; `kind` is the type of its result."""
        if self.recalls(name):
            self.progress.note(f"{name}: done before, and taken over")
            return self.recall(name, kind)  # type: ignore[no-any-return]
        result = work()
        self.remember(name, kind, result)
        return result

    def remember(self, name: str, kind: Any, result: Any) -> None:
        """Keep the result of a finished step, for `bake resume`."""
        from pydantic import TypeAdapter

        self.memory.put(name, TypeAdapter(kind).dump_python(result, mode="json"))
        self.journal.write("done", name=name)

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


def is_running(directory: Path) -> bool:
    """Whether a process of this machine bakes in that run directory."""
    if not (directory / LOCK).exists():
        return False
    lock = FileLock(directory / LOCK)
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # not ours to lock
        return False


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a run's directory; the system gives it free when the process ends, however that happens."""
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise _busy(directory) from None
    except OSError:  # a full disk: tags and the journal's state still tell
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _busy(directory: Path) -> UsageError:
    return UsageError(
        f"run {directory.name} still goes on in another process", hint="bake runs shows its state"
    )


def new(parent: Path, progress: Progress, *, exclusive: bool = False) -> Run:
    """Make `parent/<id>/`; the id sorts by time and is safe in AWS names, tags and file names."""
    run_id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    directory = parent / run_id
    memory, journal = Memory(directory, progress.note), Journal(directory, progress.note)
    run = Run(run_id, directory, progress, journal=journal, memory=memory, exclusive=exclusive)
    run.logs.mkdir(parents=True)
    progress.record_to(run.directory / "events.jsonl", lambda step: journal.write("step", step=step))
    return run


def again(record: Record, progress: Progress) -> Run:
    """The same run once more, with what its earlier attempts finished.

    Raises UsageError while another process goes on with it: nothing is written to its events then.
    """
    if is_running(record.directory):
        raise _busy(record.directory)
    directory, journal = record.directory, Journal(record.directory, progress.note)
    memory = Memory.read(directory, progress.note)
    run = Run(record.id, directory, progress, journal=journal, memory=memory, attempt=record.attempt + 1)
    progress.record_to(directory / "events.jsonl", lambda step: journal.write("step", step=step))
    return run
