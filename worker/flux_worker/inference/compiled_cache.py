"""Keep compiled blocks: a folder for each GPU, driver, set of versions and precision.

A folder has `blocks.tar`, all files of torch's and Triton's caches in one, and `compiled.json`: what they are
for, the image sizes, and the SHA-256 of the other. One file is read in a single sweep, where hundreds of
small ones are hundreds of first reads on a volume that fills lazily.

Why not `torch.compiler.save_cache_artifacts`: it carries the graphs alone. What a compiler made of them is
compiled again where they are loaded: 17.1 s to the first image, against 5.1 s with all files of the cache and
25.9 s with nothing (torch 2.13.0, a tiny FLUX on two CPU cores); for Triton that is a C compiler on each GPU
instance.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from . import nvidia_driver
from .images import Precision

Size = tuple[int, int, int]
"""Width and height in pixels, and the tokens of the prompt."""

FACTS = "compiled.json"
_BLOCKS = "blocks.tar"
_FORMAT = 1
_LIBRARIES = ("torch", "triton", "diffusers", "torchao")
_PART = 1 << 20  # bytes read at once
# Triton writes a list of each kernel's files, by their absolute paths, and compiles anew where one is gone.
_LISTS = "__grp__*.json"


class Unusable(Exception):
    """A folder that cannot be used; its text follows the folder's name."""


@dataclass(frozen=True)
class Entry:
    """A folder of compiled blocks. `made_in`: the folder that they were compiled in."""

    folder: Path
    key: Mapping[str, str]
    sizes: frozenset[Size]
    sha256: str
    made_in: str


def key_of(precision: Precision, device: str) -> dict[str, str]:
    """What compiled code depends on, by name: hardware, driver, versions, precision."""
    return {
        **_hardware(device),
        **{name: _version(name) for name in _LIBRARIES},
        "precision": precision,
    }


def name_of(key: Mapping[str, str]) -> str:
    """The name of a key's folder."""
    parts = (
        value if name in ("GPU", "CPU", "precision") else f"{name}-{value}" for name, value in key.items()
    )
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", "_".join(parts))


def _hardware(device: str) -> dict[str, str]:
    if device == "cuda":
        gpu = "{} sm{}{}".format(torch.cuda.get_device_name(), *torch.cuda.get_device_capability())
        return {"GPU": gpu, "driver": nvidia_driver.version() or "none"}
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {"CPU": f"{model[1] if model else os.uname().machine} {torch.backends.cpu.get_cpu_capability()}"}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def read(folder: Path) -> Entry | None:
    """What is in a folder; None if nothing is. Raises Unusable if its code must not be run."""
    try:
        for one in (folder.parent, folder):
            if reason := _unsafe_permissions(one):
                raise Unusable(f"is not used, since its code would be run and {reason}")
        return _entry(folder, json.loads((folder / FACTS).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise Unusable(f"cannot be read: {error}") from error


def _entry(folder: Path, told: Any) -> Entry:
    if not isinstance(told, dict) or not isinstance(told["key"], dict):
        raise ValueError("it says nothing of blocks")
    if told["format"] != _FORMAT:
        raise ValueError(f"its format is {told['format']}, not {_FORMAT}")
    sizes = frozenset((int(width), int(height), int(tokens)) for width, height, tokens in told["sizes"])
    key = {str(name): str(value) for name, value in told["key"].items()}
    return Entry(folder, key, sizes, str(told["sha256"]), str(told["made_in"]))


def _unsafe_permissions(folder: Path) -> str | None:
    status = folder.stat()
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {status.st_uid}"
    return "others may write to it" if status.st_mode & 0o022 else None


def differences(cache: Path, key: Mapping[str, str]) -> str | None:
    """In what the most similar folder of a cache differs from a key; None if the cache has no folder."""
    found = [_differences(told, key) for told in _keys(cache)]
    if not found:
        return None
    nearest = min(found, key=len)
    return "; ".join(nearest)


def _differences(told: Mapping[str, str], key: Mapping[str, str]) -> list[str]:
    return [
        f"{name} {told.get(name, 'none')}, not {value}"
        for name, value in key.items()
        if told.get(name) != value
    ]


def _keys(cache: Path) -> list[Mapping[str, str]]:
    keys = []
    for facts in sorted(cache.glob(f"*/{FACTS}")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            keys.append(_entry(facts.parent, json.loads(facts.read_text())).key)
    return keys


def unpack(entry: Entry, folder: Path) -> None:
    """Unpack the blocks into an existing folder, where they can be used.

    Raises Unusable if they are damaged, and OSError; what was unpacked by then must not be used.
    """
    try:
        with (entry.folder / _BLOCKS).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise Unusable(_DAMAGED)
            file.seek(0)  # from memory now
            with tarfile.open(fileobj=file) as tar:
                # Debian 12's Python 3.11.2 knows no filters.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(folder)  # noqa: S202
    except (tarfile.TarError, FileNotFoundError) as error:
        raise Unusable(f"{_DAMAGED} ({error})") from error
    _move_lists(folder, entry.made_in)


_DAMAGED = "is damaged and not used: remove it, and `flux-worker draw` makes it again"


def _move_lists(folder: Path, made_in: str) -> None:
    """Let Triton's lists of files name the files of this folder."""
    old, new = (json.dumps(one)[1:-1].encode() for one in (made_in, str(folder)))
    for file in folder.rglob(_LISTS) if old else ():
        file.write_bytes(file.read_bytes().replace(old, new))


class _Hashed:
    """A file that is written in one sweep, and its SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, part: bytes) -> int:
        self.sha256.update(part)
        return self._file.write(part)


def store(work: Path, folder: Path, key: Mapping[str, str], sizes: Collection[Size]) -> None:
    """Replace a folder by what was compiled in `work`. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as draft:
        new = Path(draft) / "new"
        new.mkdir()  # readable as the umask lets it, unlike the draft: another user may serve
        with (new / _BLOCKS).open("wb") as file:
            hashed = _Hashed(file)
            with tarfile.open(fileobj=hashed, mode="w|", bufsize=_PART) as tar:  # type: ignore[call-overload]
                for name in sorted(_files(work)):
                    tar.add(work / name, name, filter=_plain)
        facts = {
            "format": _FORMAT,
            "key": dict(key),
            "sizes": sorted(sizes),
            "sha256": hashed.sha256.hexdigest(),
            "bytes": (new / _BLOCKS).stat().st_size,
            "made_in": str(work),
        }
        (new / FACTS).write_text(json.dumps(facts))
        with contextlib.suppress(FileNotFoundError):
            folder.rename(Path(draft) / "old")
        new.rename(folder)


def _files(work: Path) -> list[str]:
    """The files of a cache by their paths in it, without locks, and without what marks it as there."""
    files = (file for file in work.rglob("*") if stat.S_ISREG(file.lstat().st_mode))
    return [str(file.relative_to(work)) for file in files if file.suffix != ".lock" and file.name != FACTS]


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and time; neither is used."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
