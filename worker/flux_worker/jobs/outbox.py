"""What is drawn, but not delivered: kept on disk until AWS has taken it, also across a restart."""

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

_ENTRY = ".entry"  # so no job's folder is called "." or "..", whatever the job is called
_DRAFT = "=draft-"  # no id holds a "="
_RECORD, _DELIVERY = "record.json", "delivery.json"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_MOST_IN_MEMORY = 32


@dataclass(frozen=True)
class PendingResult:
    """A finished job: record, images as files, the message it answers, the claim it was drawn under."""

    record: Record
    images: tuple[bytes, ...]
    receipt: str
    claim: str

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job.id


class Outbox:
    """A folder of parcels, one worker's alone while its process lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: IO[str] | None = None
        self._stuck: set[str] = set()
        self._memory: dict[str, PendingResult] = {}
        """What the disk did not take."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another worker uses {folder}: give each its own FLUX_STATE_DIR"
            ) from error
        except OSError as error:
            if error.errno not in _FULL:
                raise ConfigurationError(
                    f"{folder} cannot be written: {error.strerror}; set FLUX_STATE_DIR to a folder that can"
                ) from error
            log.error("the disk of %s is full: images are kept in memory alone until it has room", folder)
        for draft in folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def close(self) -> None:
        """Let another worker have the folder."""
        if self._lock:
            self._lock.close()

    def add(self, result: PendingResult) -> None:
        """Put a parcel on disk, wholly or not at all; where the disk does not take it, it stays in memory."""
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
            log.error("the image is in memory alone, the disk did not take it: %s", error)
            self._add_to_memory(result)
            if draft:
                shutil.rmtree(draft, ignore_errors=True)

    def _add_to_memory(self, result: PendingResult) -> None:
        self._memory[result.job_id] = result
        if len(self._memory) > _MOST_IN_MEMORY:
            oldest = next(iter(self._memory))
            log.error("the images of %s are thrown away: memory is for %d jobs", oldest, _MOST_IN_MEMORY)
            del self._memory[oldest]

    def get(self, job_id: str) -> PendingResult | None:
        """The parcel of a job; a broken one is removed, since its job comes back from the queue."""
        if job_id in self._memory:
            return self._memory[job_id]
        entry = self._entry(job_id)
        try:
            return _read(entry)
        except FileNotFoundError:
            if not entry.exists():
                return None
            log.error("%s is incomplete: removed, the job will be drawn again", entry)
        except (OSError, ValueError, KeyError, TypeError) as error:  # pydantic's errors are ValueErrors
            log.error("%s is broken: removed, the job will be drawn again: %s", entry, error)
        self.remove(job_id)
        return None

    def is_on_disk(self, job_id: str) -> bool:
        """Whether a job's parcel is on disk, so that it outlives this process."""
        return self._entry(job_id).exists()

    def job_ids(self) -> list[str]:
        """The ids of the jobs whose parcels are kept: on disk, oldest first, then in memory."""
        on_disk = self._on_disk()
        return on_disk + [name for name in self._memory if name not in on_disk]

    def _on_disk(self) -> list[str]:
        with contextlib.suppress(OSError):
            entries = sorted(self._folder.glob(f"*{_ENTRY}"), key=lambda entry: entry.stat().st_mtime)
            names = [entry.name.removesuffix(_ENTRY) for entry in entries]
            return [name for name in names if name not in self._stuck]
        return []

    def remove(self, job_id: str) -> None:
        """Delivered, or of no more use. What cannot be removed is not delivered again before a restart."""
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
    """Raises OSError, ValueError, KeyError or TypeError where files are missing or not what was written."""
    record = Record.model_validate_json((entry / _RECORD).read_bytes())
    delivery = json.loads((entry / _DELIVERY).read_bytes())
    images = tuple((entry / str(number)).read_bytes() for number in range(1, len(record.keys) + 1))
    if [hashlib.sha256(image).hexdigest() for image in images] != record.sha256:
        raise ValueError("an image is not what was written")
    return PendingResult(record, images, str(delivery["receipt"]), str(delivery["claim"]))


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Make names in a folder last."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
