"""Check the model's files against the hashes that were stored when they were downloaded or made.

Each start compares the hashes of small files, and the sizes of weights by their headers; `flux-worker check
--verify` compares the hashes of all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What diffusers loads. Without this list huggingface_hub takes a snapshot as incomplete that lacks the
# duplicates, which are not downloaded.
LOADED_FILES = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model"]

OnRead = Callable[[int, int], None]
"""Called with the bytes read so far, and the total."""

_COMPONENTS = {  # of FLUX.1-dev, with their configuration files
    "scheduler": "scheduler_config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "transformer": "config.json",
    "vae": "config.json",
}
_WEIGHTS = ".safetensors"
_INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")
_BLOCK = 4 << 20
_MOST_THREADS = 8
_LONGEST_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Expected:
    """The expected content of a file. `digest`: a SHA-256, or a git blob's 40 digits; None: unknown."""

    digest: str | None = None
    size: int | None = None
    wrong: str | None = None
    """Why the file is wrong whatever its content."""


_UNKNOWN = Expected(wrong="is not a link to a blob that is named by its hash: its hash is unknown")


@dataclass(frozen=True)
class Verification:
    """The result of hashing every file: `faults` by name of the files that changed."""

    files: int
    bytes: int
    seconds: float
    faults: dict[str, str]


def loaded_files(folder: Path) -> set[str]:
    """The names of all files in the folder that are loaded, and of required ones that are missing."""
    files = {file for pattern in LOADED_FILES for file in folder.glob(pattern)}
    needed = {folder / name / config for name, config in _COMPONENTS.items()} | {folder / "model_index.json"}
    for name, config in _COMPONENTS.items():
        weights = {file for file in files if file.parent.name == name and _WEIGHTS in file.name}
        if config == "config.json":
            needed |= weights or {folder / name / f"*{_WEIGHTS}"}
    for file in files:
        needed |= {file.parent / name for name in _weight_map(file)}
        if shard := _SHARD.fullmatch(file.name):
            needed.add(file.with_name(f"{shard[1]}{_INDEX}"))
    return {str(file.relative_to(folder)) for file in files | needed}


def expected_in_cache(folder: Path) -> dict[str, Expected]:
    """The expected files of a snapshot: each is a link to a blob that is named by its hash.

    A cache that was copied without links has no hashes; a file among links that is not a link is refused.
    """
    known = {name: _by_link(folder / name) for name in loaded_files(folder)}
    if any(one.digest for one in known.values()):
        known |= {name: _UNKNOWN for name in known if _is_copy(folder / name)}
    return known


def expected_in_listing(folder: Path) -> dict[str, Expected]:
    """The expected files from all sources: also from the Hub's listing, if huggingface_hub stored it."""
    listing = _listing(folder)
    links = {name: _by_link(folder / name) for name in loaded_files(folder) | listing.keys()}
    if not listing:
        return {
            name: one if one.digest or _is_gone(folder / name) else _UNKNOWN for name, one in links.items()
        }
    known = dict(listing)
    for name, link in links.items():
        if name not in listing:
            known[name] = (
                link if _is_gone(folder / name) else Expected(wrong="is not among the commit's files")
            )
        elif link.digest not in (None, listing[name].digest):
            known[name] = Expected(wrong=f"links to {link.digest}, not to {listing[name].digest}")
    return known


def _is_gone(file: Path) -> bool:
    return not os.path.lexists(file)


def _is_copy(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def faults(folder: Path, known: Mapping[str, Expected]) -> dict[str, str]:
    """The faults, by file, that a start can detect quickly."""
    found = {name: _fault(folder / name, expected) for name, expected in sorted(known.items())}
    return {name: fault for name, fault in found.items() if fault}


def verify(folder: Path, known: Mapping[str, Expected], on_read: OnRead) -> Verification:
    """Read and hash every file, several in parallel."""
    started = time.monotonic()
    sizes = {name: _size(folder / name) for name in known}
    tally = _Tally(sum(sizes.values()), on_read)
    found = faults(folder, known)

    def hashed(name: str) -> str | None:
        return found.get(name) or _changed(folder / name, known[name].digest, tally.add)

    with ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0)))) as threads:
        names = sorted(known, key=lambda name: -sizes[name])  # largest first, so that none is hashed alone
        try:
            told = dict(zip(names, threads.map(hashed, names), strict=True))
        except BaseException:  # do not hash the rest of 34 GB
            tally.over = True
            raise
    seconds = time.monotonic() - started
    wrong = {name: fault for name, fault in sorted(told.items()) if fault}
    return Verification(len(known), tally.done, round(seconds, 3), wrong)


class _Tally:
    """Bytes read by all threads."""

    def __init__(self, whole: int, on_read: OnRead) -> None:
        self.done = 0
        self.over = False
        self._whole = whole
        self._on_read = on_read
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count bytes. Raises InterruptedError if the verification was stopped."""
        if self.over:
            raise InterruptedError
        with self._lock:
            self.done += size
            self._on_read(self.done, self._whole)


def _by_link(file: Path) -> Expected:
    """The hash in the name of the blob to which a snapshot's link points."""
    if not file.is_symlink():
        return Expected()
    blob = Path(os.path.normpath(file.parent / file.readlink()))
    named = re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name) and blob.parent.name == "blobs"
    return Expected(blob.name) if named else Expected()


def _listing(folder: Path) -> dict[str, Expected]:
    """The listing of a commit's files that huggingface_hub stored at the download; {} if it did not."""
    try:
        files = json.loads((folder.parents[1] / "trees" / f"{folder.name}.json").read_text())["files"]
        return {
            name: Expected(entry.get("lfs_sha256") or entry["blob_id"], entry["size"])
            for name, entry in files.items()
            if _would_be_loaded(name)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _would_be_loaded(name: str) -> bool:
    depth = name.count("/")
    return any(pattern.count("/") == depth and Path(name).match(pattern) for pattern in LOADED_FILES)


def _weight_map(index: Path) -> dict[str, set[str]]:
    """The weights listed in an index, by file; {} for any other file."""
    if not index.name.endswith(_INDEX):
        return {}
    promised: dict[str, set[str]] = {}
    try:
        for weight, name in json.loads(index.read_text())["weight_map"].items():
            promised.setdefault(Path(name).name, set()).add(weight)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return promised


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _fault(file: Path, expected: Expected) -> str | None:
    if expected.wrong:
        return expected.wrong
    try:
        size = file.stat().st_size
        if expected.size is not None and size != expected.size:
            return f"has {size} bytes, not {expected.size}"
        if file.suffix == _WEIGHTS:
            return _wrong_header(file, size)
        return _changed(file, expected.digest)
    except FileNotFoundError:
        return "is missing" + (f": its blob {file.readlink().name} is gone" if file.is_symlink() else "")
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _wrong_header(file: Path, size: int) -> str | None:
    """The fault of a safetensors file whose header disagrees with its size or its index."""
    try:
        weights, whole = _header(file, size)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "is damaged: its header is not readable"
    if size != whole:
        return f"is damaged: it has {size} bytes, its header says {whole}"
    indexes = file.parent.glob(f"*{_INDEX}")
    promised = {weight for index in indexes for weight in _weight_map(index).get(file.name, ())}
    return f"does not match its index: it lacks {min(promised - weights)}" if promised - weights else None


def _header(file: Path, size: int) -> tuple[set[str], int]:
    """The weights of a safetensors file, and its size: eight bytes for the header's length, header, data."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if length > min(size, _LONGEST_HEADER):
            raise ValueError(length)
        entries: dict[str, Any] = json.loads(content.read(length))
    entries.pop("__metadata__", None)
    ends = (entry["data_offsets"][1] for entry in entries.values())
    return set(entries), 8 + length + int(max(ends, default=0))


def _changed(file: Path, digest: str | None, on_read: Callable[[int], None] = lambda _: None) -> str | None:
    """The fault if the content has another hash; None if no hash is known."""
    if digest is None:
        return None
    try:
        found = _hash(file, digest, on_read)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"has changed: its hash is {found}, not {digest}" if found != digest else None


def _hash(file: Path, like: str, on_read: Callable[[int], None]) -> str:
    """A hash of the same kind as `like`. Reads blocks large enough to let other threads run meanwhile."""
    with file.open("rb", buffering=0) as content:
        if len(like) == 40:
            header = b"blob %d\0" % os.fstat(content.fileno()).st_size
            state = hashlib.sha1(header, usedforsecurity=False)
        else:
            state = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK))
        while size := content.readinto(block):
            state.update(block[:size])
            on_read(size)
    return state.hexdigest()
