"""The disk as a source.

Reads are buffered, so that what one worker or the warm-up has read is in memory for the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .ranges import Range

# Measured on a disk that fills lazily: fewer do not reach its bandwidth (worker/README.md).
THREADS = 32


class FileEnds(OSError):
    """A file is shorter than it was when the load began."""


class Disk:
    """Reads files that stay open from the beginning: replacing one by another meanwhile changes nothing."""

    name = "disk"

    def __init__(self, files: Iterable[Path], threads: int = THREADS) -> None:
        self.threads = threads
        self._files: dict[Path, int] = {}
        try:
            for file in files:
                self._files[file] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._close_files()
            raise

    def read(self, part: Range, into: memoryview) -> None:
        """Fill `into`. Raises OSError; FileEnds if the file ends before the range does."""
        done = 0
        while done < part.size:
            read = os.preadv(self._files[part.file], [into[done:]], part.offset + done)
            if not read:
                raise FileEnds(f"{part.file} ends at {part.offset + done:,} bytes, before its weights do")
            done += read

    def close(self) -> None:
        """Nothing to do: reads under way need the files, which are closed with this object."""

    def __del__(self) -> None:
        self._close_files()

    def _close_files(self) -> None:
        for number in self._files.values():
            os.close(number)
        self._files = {}
