"""The outbox: results on disk until AWS has accepted them, also across a restart."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ConfigurationError
from .record import Record

log = logging.getLogger(__name__)

_ENTRY = ".entry"  # so that no job's folder is called "." or ".."
_DRAFT = "=draft-"  # no id holds a "="
_RECORD, _DELIVERY = "record.json", "delivery.json"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_MOST_IN_MEMORY = 32


@dataclass(frozen=True)
class PendingResult:
    """A finished job: its record and encoded images, its message's receipt and its claim's token."""

    record: Record
    images: tuple[bytes, ...]
    receipt: str
    claim: str

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job.id


class Outbox:
    """A folder of pending results, locked by one worker process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: IO[str] | None = None
        self._stuck: set[str] = set()
        self._memory: dict[str, PendingResult] = {}
        """Results that could not be written to disk."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another worker uses {folder}: give each worker its own FLUX_STATE_DIR"
            ) from error
        except OSError as error:
            if error.errno not in _FULL:
                raise ConfigurationError(
                    f"{folder} is not writable: {error.strerror}; set FLUX_STATE_DIR to a writable folder"
                ) from error
            log.error("the disk of %s is full: images are kept in memory until it has room", folder)
        for draft in folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def close(self) -> None:
        """Release the folder."""
        if self._lock:
            self._lock.close()

    def add(self, result: PendingResult) -> None:
        """Write a result to disk atomically; keep it in memory if that fails."""
        draft = None
        try:
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self._folder))
            for number, image in enumerate(result.images, start=1):
                _write(draft / str(number), image)
            _write(draft / _RECORD, result.record.model_dump_json().encode())
            delivery = {"receipt": result.receipt, "claim": result.claim}
            _write(draft / _DELIVERY, json.dumps(delivery).encode())
            _sync(draft)
            self.remove(result.job_id)
            draft.rename(self._entry(result.job_id))
            _sync(self._folder)
        except OSError as error:
            log.error("the images are in memory only, they could not be written to disk: %s", error)
            self._add_to_memory(result)
            if draft:
                shutil.rmtree(draft, ignore_errors=True)

    def _add_to_memory(self, result: PendingResult) -> None:
        self._memory[result.job_id] = result
        if len(self._memory) > _MOST_IN_MEMORY:
            oldest = next(iter(self._memory))
            log.error(
                "the images of %s are discarded: at most %d jobs are in memory", oldest, _MOST_IN_MEMORY
            )
            del self._memory[oldest]

    def get(self, job_id: str) -> PendingResult | None:
        """The pending result of a job; a broken one is removed, since its job comes back from the queue."""
        if job_id in self._memory:
            return self._memory[job_id]
        entry = self._entry(job_id)
        try:
            return _read(entry)
        except FileNotFoundError:
            if not entry.exists():
                return None
            log.error("%s is incomplete: removed, the job will run again", entry)
        except (OSError, ValueError, KeyError, TypeError) as error:  # pydantic's errors are ValueErrors
            log.error("%s is broken: removed, the job will run again: %s", entry, error)
        self.remove(job_id)
        return None

    def is_on_disk(self, job_id: str) -> bool:
        """Whether a job's result is on disk, so that it outlives this process."""
        return self._entry(job_id).exists()

    def job_ids(self) -> list[str]:
        """The ids of the jobs with a pending result: on disk, oldest first, then in memory."""
        on_disk = self._on_disk()
        return on_disk + [name for name in list(self._memory) if name not in on_disk]

    def _on_disk(self) -> list[str]:
        with contextlib.suppress(OSError):
            entries = sorted(self._folder.glob(f"*{_ENTRY}"), key=lambda entry: entry.stat().st_mtime)
            names = [entry.name.removesuffix(_ENTRY) for entry in entries]
            return [name for name in names if name not in self._stuck]
        return []

    def remove(self, job_id: str) -> None:
        """Remove a job's result. One that cannot be removed is not delivered again before a restart."""
        self._memory.pop(job_id, None)
        gone = self._folder / f"{_DRAFT}{secrets.token_hex(8)}"
        try:
            self._entry(job_id).rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("cannot remove %s: %s", self._entry(job_id), error)
            self._stuck.add(job_id)
        shutil.rmtree(gone, ignore_errors=True)

    def _entry(self, job_id: str) -> Path:
        return self._folder / f"{job_id}{_ENTRY}"


def _read(entry: Path) -> PendingResult:
    """Raises OSError, ValueError, KeyError or TypeError if files are missing or damaged."""
    record = Record.model_validate_json((entry / _RECORD).read_bytes())
    delivery = json.loads((entry / _DELIVERY).read_bytes())
    images = tuple((entry / str(number)).read_bytes() for number in range(1, len(record.keys) + 1))
    if [hashlib.sha256(image).hexdigest() for image in images] != record.sha256:
        raise ValueError("an image has another hash than its record says")
    return PendingResult(record, images, str(delivery["receipt"]), str(delivery["claim"]))


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
