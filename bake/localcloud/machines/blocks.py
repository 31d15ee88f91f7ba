"""Which blocks of a lazy disk are there, when the others arrive, and who has read them.

All of it lies in one file that the server of the disk (fuse_disk.py) and whoever has mounted it (lazy.py)
map into their memory: settings that take effect at once, figures that can be read at any time, and a byte a
block. It stays beside the disk, so that a reboot does not empty the volume.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from bake.localcloud.machines import disks
from bake.localcloud.machines.filling import BLOCK, Filling

FILE = "filled"  # beside the disk
_HEADER = 4096
_MIB = 1 << 20
# What is known of a block. One that held nothing when the disk was made has nothing to fetch.
HELD, THERE, READ, BACKGROUND = 1, 2, 4, 8
_STEP = 0.02  # seconds between two steps of the background fill
_IDLE = 0.2  # seconds until it is looked whether there is to be one


class _Field(IntEnum):
    """The places of the numbers in the header, eight bytes each."""

    LATENCY = 0  # s
    CEILING = 1  # bytes/s
    RATE = 2  # bytes/s of the background fill; 0: none
    SINCE = 3  # seconds since the epoch: when the background fill began
    BEFORE = 4  # blocks that it had filled by then
    STALLED_UNTIL = 5  # s, the host's monotonic clock
    WAITED = 8  # s that all first reads together waited
    BUSY = 9  # s in which there was one or more
    PEAK = 10  # most first reads at a time
    FIRST_READS = 11


@dataclass(frozen=True)
class Figures:
    """What a lazy disk has delivered since it was made; bytes are whole blocks of 512 KiB.

    `held` bytes were in the snapshot. `on_demand` of them came because they were read (or written in part),
    `background` by the initialization rate; `touched` were read, whichever way they came. `first_reads`
    blocks were waited for; `depth_mean` and `depth_peak` of them were on their way at a time, the mean over
    `busy_seconds`, in which there was one or more. `cpu_seconds` are the server's own, since it was mounted.
    """

    held: int
    on_demand: int
    background: int
    touched: int
    first_reads: int
    depth_mean: float
    depth_peak: int
    busy_seconds: float
    cpu_seconds: float = 0.0

    @property
    def progress(self) -> int:
        """Percent of the volume that is initialized."""
        return 100 * (self.on_demand + self.background) // self.held if self.held else 100

    @property
    def mb_per_s(self) -> float:
        """MB/s of first reads while there were any."""
        return self.on_demand / self.busy_seconds / 1e6 if self.busy_seconds else 0.0


class BlockMap:
    """The mapped file; settings and figures may be read and written on both sides."""

    def __init__(self, disk: Path) -> None:
        file = disk.with_name(FILE)
        if not file.exists():
            partial = file.with_name(f"{FILE}.partial")
            partial.write_bytes(bytes(_HEADER) + _flags(disk))
            partial.replace(file)
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 0)
        whole = memoryview(self._map)
        self.numbers, self.flags = whole[:_HEADER].cast("d"), whole[_HEADER:]

    def set(self, filling: Filling) -> None:
        """Let the disk fill so from now on; what is there stays."""
        numbers = self.numbers
        numbers[_Field.LATENCY], numbers[_Field.CEILING] = filling.latency / 1e3, filling.ceiling * 1e6
        rate = (filling.initialization_rate or 0.0) * _MIB
        if rate != numbers[_Field.RATE]:
            numbers[_Field.BEFORE] = self._count(BACKGROUND)
            numbers[_Field.SINCE], numbers[_Field.RATE] = time.time(), rate

    def stall(self, seconds: float) -> None:
        """Let no read come back for so long from now on; 0 ends that."""
        self.numbers[_Field.STALLED_UNTIL] = time.monotonic() + seconds if seconds else 0.0

    def touched(self) -> list[tuple[int, int]]:
        """The ranges (start, end) in bytes that the snapshot held and that were read, whole blocks."""
        return list(_ranges(self.flags, HELD | READ))

    def figures(self, cpu_seconds: float) -> Figures:
        """What has been delivered so far."""
        numbers = self.numbers
        held, background = self._count(HELD), self._count(BACKGROUND)
        there = self._count(HELD | THERE)
        return Figures(
            held * BLOCK, (there - background) * BLOCK, background * BLOCK, self._count(HELD | READ) * BLOCK,
            int(numbers[_Field.FIRST_READS]),
            numbers[_Field.WAITED] / numbers[_Field.BUSY] if numbers[_Field.BUSY] else 0.0,
            int(numbers[_Field.PEAK]), numbers[_Field.BUSY], cpu_seconds,
        )  # fmt: skip

    def _count(self, mask: int) -> int:
        return sum(1 for flags in self.flags if flags & mask == mask)


class Blocks:
    """The server's side: delays the first read of each block, and fills the others in the background."""

    def __init__(self, disk: Path) -> None:
        shared = BlockMap(disk)
        self._numbers, self._flags = shared.numbers, shared.flags
        self._lock = threading.Lock()
        self._coming: dict[int, float] = {}  # block -> when it arrives
        self._queue: deque[int] = deque()  # the same blocks in the order of their arrival
        self._last = 0.0  # when the last of them arrives, or the last before them has
        self._filled = shared._count(BACKGROUND)
        self._next = 0  # the background has passed the blocks before this one

    def fetch(self, offset: int, size: int, *, read: bool) -> None:
        """Wait until these bytes are there; with `read`, they count as touched."""
        now = time.monotonic()
        numbers = range(offset // BLOCK, min((offset + max(1, size) - 1) // BLOCK + 1, len(self._flags)))
        with self._lock:
            self._arrive(now)
            for number in numbers:
                if not self._flags[number] & THERE:
                    self._ask(number, now)
                if read:
                    self._flags[number] |= READ
            latest = max((self._coming.get(number, now) for number in numbers), default=now)
        if latest > now:
            time.sleep(latest - now)
        if read:
            self._stall()

    def fill(self) -> None:
        """Fill blocks at the initialization rate, for ever; they count from the volume's creation on."""
        while True:
            if rate := self._numbers[_Field.RATE]:
                elapsed = time.time() - self._numbers[_Field.SINCE]
                self._fill_up_to(int(self._numbers[_Field.BEFORE] + elapsed * rate / BLOCK))
            time.sleep(_STEP if rate else _IDLE)

    def _fill_up_to(self, due: int) -> None:
        with self._lock:
            while self._filled < due and self._next < len(self._flags):
                if not self._flags[self._next] & THERE:
                    self._flags[self._next] |= THERE | BACKGROUND
                    self._filled += 1
                self._next += 1

    def _arrive(self, now: float) -> None:
        while self._queue and self._coming[self._queue[0]] <= now:
            del self._coming[self._queue.popleft()]

    def _ask(self, number: int, now: float) -> None:
        """Note a block as on its way: beside others, but delivered after them as the ceiling says."""
        numbers = self._numbers
        busy_until = max(now, self._last)
        arrival = max(now + numbers[_Field.LATENCY], self._last + BLOCK / numbers[_Field.CEILING])
        self._last = self._coming[number] = arrival
        self._queue.append(number)
        self._flags[number] |= THERE
        numbers[_Field.FIRST_READS] += 1
        numbers[_Field.WAITED] += arrival - now
        numbers[_Field.BUSY] += arrival - busy_until
        numbers[_Field.PEAK] = max(numbers[_Field.PEAK], len(self._queue))

    def _stall(self) -> None:
        while (left := self._numbers[_Field.STALLED_UNTIL] - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))


def _flags(disk: Path) -> bytes:
    """A byte a block: whether the disk holds data there."""
    size = disk.stat().st_size
    flags = bytearray([THERE]) * (size // BLOCK + 1)
    with disk.open("rb") as file:
        for start, end in disks.extents(file.fileno(), size):
            for number in range(start // BLOCK, (end - 1) // BLOCK + 1):
                flags[number] = HELD
    return bytes(flags)


def _ranges(flags: memoryview, mask: int) -> Iterator[tuple[int, int]]:
    """Successive blocks that have all of `mask`, as ranges in bytes."""
    start: int | None = None
    for number, known in enumerate([*flags, 0]):
        if known & mask == mask:
            start = number if start is None else start
        elif start is not None:
            yield start * BLOCK, number * BLOCK
            start = None
