"""Read the page with which each tensor begins, before the libraries look at it.

safetensors touches the first page of each tensor that it maps, one after the other. On a volume that fills
lazily each look waits for the disk, behind all reads of the weights: a model has some 1,400 tensors. Read
many at once, they come in seconds.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

# So many that imports from the same disk still get on.
_THREADS = 8


def read_first_pages(files: Iterable[Path]) -> None:
    """Begin to read them, in daemon threads, file by file; what can't be read is the libraries' to tell."""
    places = _places(files)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                return
            with suppress(OSError):
                _read(*place)

    for number in range(_THREADS):
        threading.Thread(target=work, name=f"first-pages-{number}", daemon=True).start()


def tensor_starts(file: Path) -> list[int]:
    """Where each tensor begins, in bytes from the file's beginning; none of a file that is no safetensors."""
    try:
        with file.open("rb") as content:
            size = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(size) if size < file.stat().st_size else b"")
        header.pop("__metadata__", None)
        return sorted(8 + size + int(one["data_offsets"][0]) for one in header.values())
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return []


def _places(files: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for file in files:
        for start in tensor_starts(file):
            yield file, start


def _read(file: Path, start: int) -> None:
    """One byte brings the page; nothing is read ahead."""
    with file.open("rb", buffering=0) as content:
        os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(content.fileno(), 1, start)
