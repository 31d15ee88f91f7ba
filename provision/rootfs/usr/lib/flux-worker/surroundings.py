"""What else happens on the machine while warm.py reads: whether others read, and how much memory is left.

Only the standard library. Python 3.9 or later.
"""

from __future__ import annotations

import os
import re

from reading_order import read_text

TICK, TICKS = 0.25, 4  # seconds between two looks; looks that make up a second
BUSY = 512 << 10  # bytes a second that others read
MEMINFO = "/proc/meminfo"


class Surroundings:
    """What others leave for us: of memory, and of the disk."""

    def __init__(self) -> None:
        self.memory = 0  # bytes that are available, page cache included
        self.devices: set = set()  # the disks that we read from, as os.stat numbers them
        self._others: list = []  # bytes that others had read, at each of the last ticks

    def look(self, asked: int) -> None:
        """Once a tick. `asked` bytes are on their way to us: a disk counts them when they have come."""
        self.memory = _available()
        self._others = [*self._others[-TICKS:], _read_by_others(list(self.devices)) + asked]

    def busy(self) -> bool:
        """Whether others have read from these disks within the last second."""
        return len(self._others) <= TICKS or self._others[-1] - self._others[0] > BUSY


def _available() -> int:
    """Bytes of memory; none if nobody can tell."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB", read_text(MEMINFO), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _read_by_others(devices: list) -> int:
    """Bytes since some moment, more or less; 0 where the kernel does not count: then nobody seems to read."""
    try:
        stats = [read_text(f"/sys/dev/block/{os.major(one)}:{os.minor(one)}/stat") for one in devices]
    except OSError:
        return 0
    return sum(int(stat.split()[2]) * 512 for stat in stats) - read_here()


def read_here() -> int:
    """Bytes that this process has read from disks; 0 where the kernel does not count."""
    try:
        found = re.search(r"^read_bytes: (\d+)", read_text("/proc/self/io"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
