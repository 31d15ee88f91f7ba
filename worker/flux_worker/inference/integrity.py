"""Whether the model's files still are what was downloaded or made, by the hashes that are kept beside them.

Each start compares the hashes of small files and the sizes of the weights, of which only headers are read;
`flux-worker check --verify` compares the hashes of all.
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

# What diffusers loads. Named, because the Hub's cache also knows the duplicates that nobody downloads, and
# counts a snapshot without them as incomplete unless it is told what is wanted.
LOADED_FILES = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model"]

OnRead = Callable[[int, int], None]
"""Called with the bytes read so far, and with those of all files."""

_COMPONENTS = {  # of FLUX.1-dev, with the configuration that each has
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
    """What a file must be. `digest`: a SHA-256, or a git blob's 40 digits; None: nothing tells."""

    digest: str | None = None
    size: int | None = None
    wrong: str | None = None
    """Why it can't be what it must be, whatever it holds."""


_UNKNOWN = Expected(wrong="is no link to a blob with its hash for a name: nothing tells what it must be")


@dataclass(frozen=True)
class Verification:
    """What came of hashing every file: `faults` by the names of those that are not as they were."""

    files: int
    bytes: int
    seconds: float
    faults: dict[str, str]


def loaded_files(folder: Path) -> set[str]:
    """The names of all files in the folder that would be loaded, and of those that can't be left out."""
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
    """The files of a snapshot: each is a link to a blob, which has its hash for a name.

    A cache that was copied without its links tells nothing; a file that is no link among links is refused.
    """
    known = {name: _by_link(folder / name) for name in loaded_files(folder)}
    if any(one.digest for one in known.values()):
        known |= {name: _UNKNOWN for name in known if _is_copy(folder / name)}
    return known


def expected_in_listing(folder: Path) -> dict[str, Expected]:
    """The same by all that can be known: also by the Hub's own listing, where huggingface_hub kept it."""
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
    """What a start can tell at once of files that are not as they were, by their names."""
    found = {name: _fault(folder / name, expected) for name, expected in sorted(known.items())}
    return {name: fault for name, fault in found.items() if fault}


def verify(folder: Path, known: Mapping[str, Expected], on_read: OnRead) -> Verification:
    """Read and hash every file, several at a time."""
    started = time.monotonic()
    sizes = {name: _size(folder / name) for name in known}
    tally = _Tally(sum(sizes.values()), on_read)
    found = faults(folder, known)

    def hashed(name: str) -> str | None:
        return found.get(name) or _changed(folder / name, known[name].digest, tally.add)

    with ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0)))) as threads:
        names = sorted(known, key=lambda name: -sizes[name])  # the largest last would be hashed alone
        try:
            told = dict(zip(names, threads.map(hashed, names), strict=True))
        except BaseException:  # nobody waits for what is left of 34 GB
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
        """So many more. Raises InterruptedError where nobody wants to know any more."""
        if self.over:
            raise InterruptedError
        with self._lock:
            self.done += size
            self._on_read(self.done, self._whole)


def _by_link(file: Path) -> Expected:
    """What the name of the blob says that a snapshot's link leads to."""
    if not file.is_symlink():
        return Expected()
    blob = Path(os.path.normpath(file.parent / file.readlink()))
    named = re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name) and blob.parent.name == "blobs"
    return Expected(blob.name) if named else Expected()


def _listing(folder: Path) -> dict[str, Expected]:
    """What huggingface_hub wrote down of a commit's files when it downloaded them; {} where it did not."""
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
    """The weights that an index promises, by file; {} for every other file."""
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
    """What a safetensors file's header has against its size and its name."""
    try:
        weights, whole = _header(file, size)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "is damaged: its header is not readable"
    if size != whole:
        return f"is damaged: it has {size} bytes, and by its header {whole}"
    indexes = file.parent.glob(f"*{_INDEX}")
    promised = {weight for index in indexes for weight in _weight_map(index).get(file.name, ())}
    return f"is not what its index says: it lacks {min(promised - weights)}" if promised - weights else None


def _header(file: Path, size: int) -> tuple[set[str], int]:
    """The weights of a safetensors file, and its size: the header's length in eight bytes, it, and they."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if length > min(size, _LONGEST_HEADER):
            raise ValueError(length)
        entries: dict[str, Any] = json.loads(content.read(length))
    entries.pop("__metadata__", None)
    ends = (entry["data_offsets"][1] for entry in entries.values())
    return set(entries), 8 + length + int(max(ends, default=0))


def _changed(file: Path, digest: str | None, on_read: Callable[[int], None] = lambda _: None) -> str | None:
    """What is wrong where the content has another hash; nothing where none is known."""
    if digest is None:
        return None
    try:
        found = _hash(file, digest, on_read)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"has changed: its hash is {found}, not {digest}" if found != digest else None


def _hash(file: Path, like: str, on_read: Callable[[int], None]) -> str:
    """Of the kind that `like` is. Reads as much at once as keeps other threads running meanwhile."""
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
