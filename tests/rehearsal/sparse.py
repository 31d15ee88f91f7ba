"""Read the parts of a sparse disk file that hold data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def chunks(disk: Path, overlap: int) -> Iterator[bytes]:
    """The data of a sparse file, its holes left out; neighbouring chunks share `overlap` bytes."""
    with disk.open("rb") as file:
        size, start = disk.stat().st_size, 0
        while start < size:
            try:
                start = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:  # only a hole is left
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for place in range(start, end, 1 << 24):
                yield os.pread(file.fileno(), min(1 << 24, end - place) + overlap, place)
            start = end


def matches(chunk: bytes, start: bytes, pattern: re.Pattern[bytes]) -> Iterator[bytes]:
    """What matches a pattern that begins with `start`, which is found fast: a search takes minutes a disk."""
    place = chunk.find(start)
    while place >= 0:
        if found := pattern.match(chunk, place):
            yield found[0]
        place = chunk.find(start, place + 1)
