"""Faults of downloads from the Hub on request: cut, stalled, wrong and slow answers.

They strike `GET …/resolve/…`. `control.RemoteHub` plants them, and ends them all, also those of answers that
are slow or stalled at the moment.
"""

from __future__ import annotations

import fnmatch
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr

_BLOCK = 1 << 20


class Fault(BaseModel):
    """One fault. It strikes `times` answers (None: all from now on), after `after` answers without it.

    `elsewhere` sends the client to a storage host by another name, answering with `status` if set.
    `at` is a part of the whole file, `by` bytes, `rate` bytes a second, `seconds` and `retry_after` seconds.
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    kind: Literal["status", "cut", "stall", "flip", "length", "slow", "no-ranges", "elsewhere", "changed"]
    times: int | None = 1
    after: int = 0
    status: int | None = None
    retry_after: int | None = None
    message: str = "the Hub fails on request"
    at: float = 0.5
    by: int = 0
    rate: float = 1e6
    seconds: float = 60.0
    _over: threading.Event = PrivateAttr(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether all faults have been ended since this one struck."""
        return self._over.is_set()

    def hold(self, seconds: float) -> None:
        """Wait `seconds`, or until all faults are ended."""
        self._over.wait(seconds)


class Faults:
    """The planted faults. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._coming: list[Fault] = []
        self._over = threading.Event()

    def add(self, fault: Fault) -> None:
        """Plant a fault: it strikes from now on."""
        with self._lock:
            fault._over = self._over
            self._coming.append(fault)

    def clear(self) -> None:
        """End all faults at once."""
        with self._lock:
            self._coming.clear()
            self._over.set()
            self._over = threading.Event()

    def listed(self) -> list[Fault]:
        """The faults that may still strike."""
        with self._lock:
            return [fault.model_copy() for fault in self._coming]

    def take(self, path: str) -> Fault | None:
        """Take the fault that strikes this answer for `path`, if any."""
        with self._lock:
            for fault in self._coming:
                if not fnmatch.fnmatch(path, fault.path) or fault.kind == "changed":
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                self._count(fault)
                return fault
        return None

    def changed(self, path: str) -> bool:
        """Whether a fault has changed the file's version."""
        with self._lock:
            for fault in self._coming:
                if fault.kind == "changed" and fnmatch.fnmatch(path, fault.path):
                    if not fault.after:
                        return True
                    fault.after -= 1
        return False

    def _count(self, fault: Fault) -> None:
        if fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self._coming.remove(fault)


@dataclass
class Body:
    """Bytes `start` to `stop` of a file, with or without a fault; `sent` is called with each block's size."""

    file: Path
    start: int
    stop: int
    fault: Fault | None
    connection: socket.socket
    sent: Callable[[int], None]

    def __iter__(self) -> Iterator[bytes]:
        position = self.start
        with self.file.open("rb") as reader:
            reader.seek(position)
            while position < self.stop:
                block = reader.read(min(self._block(), self._edge(position) - position))
                # Beyond the end of the file, to fill up a false length.
                block = block or bytes(min(_BLOCK, self.stop - position))
                touched = self._touched(block, position)
                self.sent(len(block))  # counted before it is sent, since a client may ask for the sum at once
                yield touched
                position += len(block)
                if position == self._break() and position < self.stop:
                    self._strike()

    def _block(self) -> int:
        """The size of the next block: a tenth of a second's worth if the answer is slow."""
        if self.fault is None or self.fault.kind != "slow" or self.fault.over:
            return _BLOCK
        return max(1, int(self.fault.rate / 10))

    def _break(self) -> int | None:
        if self.fault and self.fault.kind in {"cut", "stall"}:
            return int(self.fault.at * self.file.stat().st_size)
        return None

    def _edge(self, position: int) -> int:
        """The end of the block: at the break, if one lies ahead."""
        place = self._break()
        return self.stop if place is None or place <= position else min(place, self.stop)

    def _touched(self, block: bytes, position: int) -> bytes:
        if self.fault and self.fault.kind == "slow":
            self.fault.hold(len(block) / self.fault.rate)
        if self.fault and self.fault.kind == "flip":
            place = int(self.fault.at * self.file.stat().st_size) - position
            if 0 <= place < len(block):
                return block[:place] + bytes([block[place] ^ 1]) + block[place + 1 :]
        return block

    def _strike(self) -> None:
        """Stall if that is the fault, then close the connection."""
        if self.fault and self.fault.kind == "stall":
            self.fault.hold(self.fault.seconds)
        self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError("cut on request")
