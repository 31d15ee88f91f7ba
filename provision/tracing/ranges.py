"""Parts of files, and the trace that is made of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
WHOLE = 0
"""The length that stands for a whole file."""
GAP = 512 << 10
"""Bytes between two parts of a file that are read all the same: a snapshot's block is fetched as a whole."""


@dataclass(frozen=True)
class Range:
    """Bytes of a file. `size` and `mtime` (ns) are the file's: with others, it is another file."""

    path: str
    offset: int
    length: int
    size: int
    mtime: int

    @property
    def bytes(self) -> int:
        """How many are read."""
        return self.size if self.length == WHOLE else self.length

    def as_json(self) -> list[str | int]:
        """As the trace has it."""
        return [self.path, self.offset, self.length, self.size, self.mtime]


@dataclass(frozen=True)
class Stage:
    """What a part of the start reads, in reading order."""

    name: str
    ranges: tuple[Range, ...]

    def facts(self) -> dict[str, Any]:
        """Bytes, files and ranges, without their names."""
        return {
            "name": self.name,
            "bytes": sum(one.bytes for one in self.ranges),
            "files": len({one.path for one in self.ranges}),
            "ranges": len(self.ranges),
        }


def whole(path: Path | str) -> Range | None:
    """All of a file, by its real path; None for what is missing, empty, or no file."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
    except OSError:
        return None
    if not os.path.isfile(real) or found.st_size == 0:
        return None
    return Range(real, 0, WHOLE, found.st_size, found.st_mtime_ns)


def wholes(paths: Iterable[Path | str]) -> tuple[Range, ...]:
    """The same of many, each file once."""
    return tuple({one.path: one for one in map(whole, paths) if one is not None}.values())


def closed(runs: Iterable[tuple[int, int]], gap: int = GAP) -> Iterator[tuple[int, int]]:
    """Join sorted runs (begin, end) that lie less than `gap` apart."""
    begin = end = -1
    for first, last in runs:
        if end >= 0 and first - end < gap:
            end = max(end, last)
            continue
        if end >= 0:
            yield begin, end
        begin, end = first, last
    if end >= 0:
        yield begin, end


def rest(path: str, known: Iterable[Range]) -> tuple[Range, ...]:
    """What of a file the known ranges of it leave out."""
    file = whole(path)
    if file is None:
        return ()
    taken = sorted((one.offset, one.offset + one.bytes) for one in known if one.path == file.path)
    found, at = [], 0
    for begin, end in [*taken, (file.size, file.size)]:
        if begin > at:
            found.append(Range(file.path, at, begin - at, file.size, file.mtime))
        at = max(at, end)
    return tuple(found)


def trace(image: str, recorded: str, stages: Iterable[Stage]) -> dict[str, Any]:
    """What the image ships."""
    named = [{"name": one.name, "ranges": [part.as_json() for part in one.ranges]} for one in stages]
    return {"format": FORMAT, "image": image, "recorded": recorded, "stages": named}
