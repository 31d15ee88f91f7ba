"""Facts about what a start reads: the trace, bytecode that is missing, copies of weights.

Input: `trace` (the file), `weights` (folders, each with one copy of what it holds).
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LARGE = 16 << 10  # bytes from which a copy counts
MOST = 20  # named of each kind of finding
HEADER = 16  # bytes of a .pyc: magic number, flags, and the source's time and size (PEP 552)
BY_HASH = 1  # of the flags: the source's hash stands there instead of time and size
CHUNK = 1 << 20
CACHE = "__pycache__"


def trace_facts(file: Path) -> tuple[dict[str, Any], list[Path]]:
    """What the trace says, which of its files are others by now, and the paths of its first stage."""
    facts: dict[str, Any] = {"error": "", "recorded": "", "stages": {}, "files": 0, "changed": []}
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        facts["recorded"] = told["recorded"]
        ranges = {stage["name"]: stage["ranges"] for stage in told["stages"]}
        facts["stages"] = {name: sum(one[2] or one[3] for one in found) for name, found in ranges.items()}
        known = {
            path: (size, mtime, name == "libraries")
            for name, found in ranges.items()
            for path, _, _, size, mtime in found
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        facts["error"] = f"{type(error).__name__}: {error}"
        return facts, []
    facts["files"] = len(known)
    changed = (change(Path(path), size, at, library=own) for path, (size, at, own) in known.items())
    facts["changed"] = list(itertools.islice(filter(None, changed), MOST))
    first: list[Any] = next(iter(ranges.values()), [])
    return facts, [Path(path) for path in dict.fromkeys(one[0] for one in first)]


def change(path: Path, size: int, mtime: int, *, library: bool) -> str:
    """How a file differs from what the trace says of it; empty if it does not.

    Whether weights are there, and whole, is another check's business.
    """
    try:
        found = path.lstat()
    except OSError as error:
        return f"{path}: {error.strerror}" if library else ""
    if found.st_size != size:
        return f"{path}: {found.st_size} bytes instead of {size}" if library else ""
    return "" if found.st_mtime_ns == mtime else f"{path}: changed after it was traced"


def without_bytecode(paths: Iterable[Path]) -> Iterator[str]:
    """Modules of the trace that each start compiles again: root's folders take no bytecode from the worker.

    Sources are in a trace for other reasons as well: transformers reads 1,700 to know what is in them.
    """
    for path in paths:
        if path.suffix == ".pyc" and path.parent.name == CACHE:
            source = path.parent.parent / f"{path.name.split('.')[0]}.py"
            if why := invalid(path, source):
                yield f"{source}: {why}"
        elif path.suffix == ".py":
            beside = [one for one in (path.parent / CACHE).glob("*.pyc") if one.name.count(".") == 2]
            whys = [invalid(one, path) for one in beside if one.name.split(".")[0] == path.stem]
            if all(whys):
                yield f"{path}: {whys[0] if whys else 'no bytecode'}"


def invalid(pyc: Path, source: Path) -> str:
    """Why Python would compile the source again; empty if it would not."""
    try:
        with pyc.open("rb") as file:
            header = file.read(HEADER)
        of = source.stat()
    except OSError as error:
        return str(error.strerror)
    if len(header) < HEADER:
        return "its bytecode is cut off"
    flags, mtime, size = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12))
    if flags & BY_HASH:
        return ""
    same = (mtime, size) == (int(of.st_mtime) & 0xFFFFFFFF, of.st_size & 0xFFFFFFFF)
    return "" if same else "it is newer than its bytecode, or another one"


def copies(folder: str) -> Iterator[str]:
    """Large files of a folder with the same content."""
    by_size: dict[int, dict[int, Path]] = collections.defaultdict(dict)
    for top, _, names in os.walk(folder):
        for path in (Path(top, name) for name in names):
            found = path.lstat()
            if not path.is_symlink() and found.st_size >= LARGE:
                by_size[found.st_size].setdefault(found.st_ino, path)
    for alike in by_size.values():
        if len(alike) > 1:
            hashed: dict[str, list[str]] = collections.defaultdict(list)
            for path in alike.values():
                hashed[sha256(path)].append(str(path))
            yield from (" = ".join(sorted(paths)) for paths in hashed.values() if len(paths) > 1)


def sha256(path: Path) -> str:
    """The hash of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(CHUNK), b""):
            found.update(block)
    return found.hexdigest()


def main() -> None:
    """Print the facts."""
    given = json.load(sys.stdin)
    trace, paths = trace_facts(Path(given["trace"]))
    alike = itertools.chain.from_iterable(copies(folder) for folder in given["weights"])
    facts = {
        "trace": trace,
        "compiled": list(itertools.islice(without_bytecode(paths), MOST)),
        "copies": list(itertools.islice(alike, MOST)),
    }
    print(json.dumps(facts))


main()
