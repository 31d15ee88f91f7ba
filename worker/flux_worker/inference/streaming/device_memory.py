"""Device memory as a destination: a ring of host buffers, from which copies to the device overlap reads.

The buffers are pinned (page-locked), from which the GPU copies by itself. Their number bounds the host's
memory, whatever the model's size. What CUDA does is behind `Copies`.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from .feed import Slot
from .ranges import Range

log = logging.getLogger(__name__)


class Done(Protocol):
    """A copy's end, as a CUDA event."""

    def synchronize(self) -> None:
        """Wait until the copy is finished."""


class Copies(Protocol):
    """Asynchronous copies from host buffers to the device, in order."""

    def buffer(self, size: int) -> torch.Tensor:
        """`size` bytes of host memory to copy from."""

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> Done:
        """Begin to copy; both are bytes, and `source` stays as it is until the copy is finished."""

    def finish(self) -> None:
        """Wait until all copies are finished, and visible to the stream that computes."""


class CudaCopies:
    """Copies on a CUDA stream of their own, beside the one that computes."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # The allocator may have given memory that earlier work on the computing stream still uses.
        self._stream.wait_stream(torch.cuda.current_stream())

    def buffer(self, size: int) -> torch.Tensor:
        """Pinned memory; if there is none to be had, other memory, from which copies are slower."""
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            log.warning("the load is slower without %.2f GB of pinned memory: %s", size / 1e9, error)
            return torch.empty(size, dtype=torch.uint8)

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> torch.cuda.Event:
        """As Copies says; the calling thread's own stream is not involved."""
        with torch.cuda.stream(self._stream):
            to.copy_(source, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        return done

    def finish(self) -> None:
        """As Copies says."""
        self._stream.synchronize()


class DeviceMemory:
    """One tensor of bytes per file on the device, filled through `slots` buffers of `slot_bytes` each.

    There must be more slots than threads that read: those beyond are being copied.
    """

    def __init__(
        self, files: Mapping[Path, torch.Tensor], copies: Copies, *, slots: int, slot_bytes: int
    ) -> None:
        self._files = files
        self._copies = copies
        memory = copies.buffer(slots * slot_bytes)
        self._buffers = memory.split(slot_bytes)  # type: ignore[no-untyped-call]
        self._views = [buffer.numpy().data for buffer in self._buffers]
        self._copied: list[Done | None] = [None] * slots
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()  # the longest free first
        for number in range(slots):
            self._free.put(number)

    def take(self, part: Range, *, trusted: bool) -> Slot:
        """A buffer whose last copy is finished."""
        number = self._free.get()
        if (copied := self._copied[number]) is not None:
            copied.synchronize()
        return Slot(self._views[number][: part.size], in_place=False, number=number)

    def land(self, part: Range, slot: Slot) -> None:
        """Begin to copy the buffer to the range's place."""
        to = self._files[part.file][part.offset : part.offset + part.size]
        self._copied[slot.number] = self._copies.copy(to, self._buffers[slot.number][: part.size])
        self._free.put(slot.number)

    def give_back(self, slot: Slot) -> None:
        """The buffer is free at once."""
        self._free.put(slot.number)

    def finish(self) -> None:
        """Wait until all copies are finished."""
        self._copies.finish()
