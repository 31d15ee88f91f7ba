"""The Hugging Face cache on disk, in huggingface_hub's layout; a snapshot appears only when it is complete.

models--OWNER--NAME/blobs/ETAG                   a file's content, hashed
models--OWNER--NAME/blobs/ETAG.incomplete        what there is of it so far
models--OWNER--NAME/snapshots/REVISION/PATH      a link to its blob
models--OWNER--NAME/refs/main                    the revision
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.file_download import repo_folder_name

from prefetch.failures import Refused
from prefetch.wanted import File, Wanted

_STAGED = ".snapshot"
_INCOMPLETE = ".incomplete"


@dataclass(frozen=True)
class Leftover:
    """A leftover of an earlier try. `removed` is false if it is not this download's."""

    path: str
    bytes: int
    removed: bool


class Cache:
    """The folder of one repository in the cache."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.folder = wanted.cache / repo_folder_name(repo_id=wanted.repo, repo_type="model")
        self.blobs = self.folder / "blobs"
        self.snapshot = self.folder / "snapshots" / wanted.revision
        self._contents = {file.etag: file for file in wanted.contents}

    def blob(self, file: File) -> Path:
        """Path of a file's content once it is hashed."""
        return self.blobs / file.etag

    def partial(self, file: File) -> Path:
        """Path of a file's content while it is downloaded."""
        return self.blobs / f"{file.etag}{_INCOMPLETE}"

    def there(self, file: File) -> int:
        """Bytes of the file that are here already, not yet verified."""
        for path in (self.blob(file), self.partial(file)):
            if self._usable(path):
                return path.stat().st_size
        return 0

    def claim(self) -> int:
        """Keep other downloads out for as long as this process lives; returns the descriptor that holds it.

        The lock is on the folder itself: no lock file is left for the image.
        """
        self.blobs.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # On the folder itself: filelock would leave a lock file on the image.
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(folder)
            raise Refused(
                "busy",
                f"another download into {self.folder} is running",
                "wait for it or end it, then start this one again",
            ) from error
        return folder

    def clean(self) -> list[Leftover]:
        """Remove what is left of earlier tries in this repository, but what can be continued.

        Other repositories are only told. The snapshot goes first: it comes back when all is hashed, and
        never stands there without its blobs, whenever this is killed.
        """
        self._withdraw()
        found = [self._remove(path) for path in self._unneeded()]
        for other in sorted(self._wanted.cache.iterdir()):
            if other.name not in {self.folder.name, ".locks", "CACHEDIR.TAG"}:
                found.append(Leftover(other.name, _bytes(other), removed=False))
        with contextlib.suppress(OSError):  # another repository's locks may be in it
            (self._wanted.cache / ".locks").rmdir()
        return found

    def _withdraw(self) -> None:
        """Remove the snapshot, also a half-made one."""
        shutil.rmtree(self.folder / _STAGED, ignore_errors=True)
        if self.snapshot.is_symlink():
            self.snapshot.unlink()
        elif self.snapshot.exists():
            self._take_away(self.snapshot)

    def _take_away(self, folder: Path) -> None:
        """Remove a folder atomically for readers: half a snapshot passes for a complete one."""
        away = self.folder / _STAGED
        folder.rename(away)
        shutil.rmtree(away)

    def _unneeded(self) -> Iterator[Path]:
        """Sort references and snapshots before the blobs that they point to."""
        for path in sorted((self.folder / "refs").rglob("*")):
            if path.is_file() and path.read_bytes() != self._wanted.revision.encode():
                yield path
        for path in sorted((self.folder / "snapshots").glob("*")):
            if path != self.snapshot:
                yield path
        locks = self._wanted.cache / ".locks" / self.folder.name
        yield from [locks] if locks.exists() else []
        for path in sorted(self.folder.iterdir()):
            if path.name not in {"blobs", "snapshots", "refs", _STAGED}:
                yield path
        for path in sorted(self.blobs.iterdir()):
            whole = self.blobs / path.name.removesuffix(_INCOMPLETE)
            doubled = path != whole and self._usable(whole)
            if doubled or not self._usable(path):
                yield path

    def _usable(self, path: Path) -> bool:
        """Whether it is wanted content: complete under its own name, or partial and not too long."""
        file = self._contents.get(path.name.removesuffix(_INCOMPLETE))
        if file is None or path.is_symlink() or not path.is_file():
            return False
        size = path.stat().st_size
        return size == file.bytes if path.suffix != _INCOMPLETE else size <= file.bytes

    def _remove(self, path: Path) -> Leftover:
        leftover = Leftover(str(path.relative_to(self._wanted.cache)), _bytes(path), removed=True)
        if path.is_dir() and not path.is_symlink():
            self._take_away(path)
        else:
            path.unlink()
        return leftover

    def publish(self) -> Path:
        """Create the snapshot and its reference; all blobs are hashed and on disk by now."""
        staged = self.folder / _STAGED
        for name, file in self._wanted.files.items():
            link = staged / name
            link.parent.mkdir(parents=True, exist_ok=True)
            # The snapshot will be one folder deeper than here.
            up = "../" * (len(Path(name).parts) + 1)
            link.symlink_to(f"{up}blobs/{file.etag}")
        self.snapshot.parent.mkdir(exist_ok=True)
        staged.rename(self.snapshot)
        reference = self.folder / "refs" / "main"
        reference.parent.mkdir(exist_ok=True)
        reference.write_text(self._wanted.revision)
        for folder in (self.blobs, self.snapshot.parent, reference.parent, self.folder):
            _sync(folder)
        return self.snapshot


def _sync(folder: Path) -> None:
    """Sync the folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes(path: Path) -> int:
    """Return the bytes on disk of a file or folder; sparse files count their blocks."""
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files if not file.is_dir())
