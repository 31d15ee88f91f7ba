"""Host memory as a destination: reads from the disk go straight to their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .feed import Slot
from .ranges import Range


class HostMemory:
    """One writable view of each whole file's bytes."""

    def __init__(self, files: Mapping[Path, memoryview]) -> None:
        self._files = files

    def take(self, part: Range, *, trusted: bool) -> Slot:
        """The range's place, or a buffer of its own."""
        return Slot(self._place(part) if trusted else memoryview(bytearray(part.size)), trusted)

    def land(self, part: Range, slot: Slot) -> None:
        """Copy what is not in its place."""
        if not slot.in_place:
            self._place(part)[:] = slot.view

    def give_back(self, slot: Slot) -> None:
        """Nothing to do."""

    def finish(self) -> None:
        """Nothing to do."""

    def _place(self, part: Range) -> memoryview:
        return self._files[part.file][part.offset : part.offset + part.size]
