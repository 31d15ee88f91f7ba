"""Ranges of files, and in which order the disk and the other sources read them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The disk reads what another source holds once that took so many times the disk's own mean for a range, and
# this long at least: a disk that is filled reads a range in milliseconds.
PATIENCE = 4.0
PATIENCE_SECONDS = 0.5


@dataclass(frozen=True)
class Range:
    """Bytes `offset` to `offset + size` of a file; `sha256` is the hex digest of exactly these bytes."""

    file: Path
    offset: int
    size: int
    sha256: str | None = None


class Schedule:
    """Which range is read next. Not thread-safe: the feed guards it. All times are monotonic, in seconds.

    The disk takes from the front. Others take ranges that have a hash from the back, and at the end what the
    disk began last, which it would finish last. What they failed to read or hold for too long is the disk's.
    """

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._todo = deque(ranges)
        self._for_disk: deque[Range] = deque()  # what others returned, or cannot read
        self._landed: set[Range] = set()
        self._read_by_others: set[Range] = set()  # now or ever
        self._by_disk: dict[Range, float] = {}  # and since when; the oldest first
        self._by_others: dict[Range, tuple[str, float]] = {}  # whom and since when, unless the disk took over
        self._disk_seconds = 0.0
        self._disk_ranges = 0
        self._brought: dict[str, tuple[float, int]] = {}  # seconds and number of what each other has brought
        self.left = len(self._todo)
        """How many ranges have not landed."""
        self.too_slow: dict[str, str] = {}
        """Sources from which the disk took over what they held far longer than usual, and why."""

    def next_for_disk(self, now: float) -> Range | None:
        """The disk's next range; None: there is none by now, and there may be one after `patience`."""
        part = self._from_front() or self._overdue(now)
        if part is not None:
            self._by_disk[part] = now
        return part

    def next_for_other(self, name: str, now: float) -> Range | None:
        """The next range for the source of this name; None: there will be none."""
        part = self._from_back() or self._doubled()
        if part is not None:
            self._read_by_others.add(part)
            self._by_others[part] = (name, now)
        return part

    def patience(self, now: float) -> float | None:
        """Seconds until the disk takes over what another source holds; None: no other holds anything."""
        if not self._by_others:
            return None
        _, since = next(iter(self._by_others.values()))
        return max(0.0, since + self._patience() - now)

    def is_shared(self, part: Range) -> bool:
        """Whether another source reads the range, or did."""
        return part in self._read_by_others

    def has_landed(self, part: Range) -> bool:
        """Whether some source has brought the range."""
        return part in self._landed

    def landed(self, part: Range) -> bool:
        """The range is in its place; False if it was already."""
        if part in self._landed:
            return False
        self._landed.add(part)
        self.left -= 1
        return True

    def disk_ended(self, part: Range, now: float) -> None:
        """The disk has read the range."""
        self._disk_seconds += now - self._by_disk.pop(part)
        self._disk_ranges += 1

    def other_ended(self, part: Range, now: float, *, failed: bool) -> None:
        """Another source is done with the range; if it failed, the disk reads it."""
        held = self._by_others.pop(part, None)
        if held is not None and not failed:
            name, since = held
            seconds, number = self._brought.get(name, (0.0, 0))
            self._brought[name] = (seconds + now - since, number + 1)
        if failed and held is not None and part not in self._landed and part not in self._by_disk:
            self._for_disk.append(part)

    def _from_front(self) -> Range | None:
        for queue in (self._for_disk, self._todo):
            if queue:
                return queue.popleft()
        return None

    def _overdue(self, now: float) -> Range | None:
        if self.patience(now) != 0.0:
            return None
        part, (name, since) = next(iter(self._by_others.items()))
        del self._by_others[part]
        if part in self._by_disk or part in self._landed:
            return self._overdue(now)
        seconds, number = self._brought.get(name, (0.0, 0))
        if now - since > PATIENCE * seconds / max(number, 1):  # else the disk is only faster at the end
            self.too_slow[name] = f"too slow: it held {part.size:,} bytes for {now - since:.1f} s"
        return part

    def _from_back(self) -> Range | None:
        while self._todo:
            part = self._todo.pop()
            if part.sha256:
                return part
            self._for_disk.appendleft(part)
        return None

    def _doubled(self) -> Range | None:
        """What the disk began last: it is read twice, and who is first brings it."""
        free = (p for p in reversed(self._by_disk) if p.sha256 and p not in self._read_by_others)
        return next(free, None)

    def _patience(self) -> float:
        mean = self._disk_seconds / self._disk_ranges if self._disk_ranges else 0.0
        return max(PATIENCE * mean, PATIENCE_SECONDS)
