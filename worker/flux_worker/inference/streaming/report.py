"""What the load read: from which source, how fast, and how many reads were under way at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SourceReport:
    """One source's share. `seconds` are from its first read's begin to its last one's end.

    `mean_depth` is the mean number of its reads under way in that time, `peak_depth` the largest. `dropped`
    says why the source was given up; None if it was not.
    """

    name: str
    bytes: int
    seconds: float
    mean_depth: float
    peak_depth: int
    dropped: str | None = None


@dataclass(frozen=True)
class StreamReport:
    """The whole load: bytes that arrived, in how many seconds, by source; depths count all sources' reads."""

    bytes: int
    seconds: float
    mean_depth: float
    peak_depth: int
    sources: tuple[SourceReport, ...]

    @property
    def dropped(self) -> dict[str, str]:
        """The sources that were given up, and why."""
        return {source.name: source.dropped for source in self.sources if source.dropped}

    def as_json(self) -> dict[str, Any]:
        """The same with rounded figures, for logs and reports."""
        facts = asdict(self)
        for part in (facts, *facts["sources"]):
            part["seconds"] = round(part["seconds"], 2)
            part["mean_depth"] = round(part["mean_depth"], 1)
        return facts


class Depth:
    """Measures how many reads are under way; every call's `now` is monotonic and in seconds."""

    def __init__(self) -> None:
        self.peak = 0
        self._reads = 0
        self._area = 0.0  # reads x seconds
        self._since = self._first = self._last = 0.0

    def begins(self, now: float) -> None:
        """One more read is under way."""
        if not self._since:
            self._first = now
        self._count(now, 1)
        self.peak = max(self.peak, self._reads)

    def ends(self, now: float) -> None:
        """A read is over."""
        self._count(now, -1)
        self._last = now

    @property
    def seconds(self) -> float:
        """From the first read's begin to the last end."""
        return max(0.0, self._last - self._first)

    @property
    def mean(self) -> float:
        """The mean number of reads under way in that time."""
        return self._area / self.seconds if self.seconds else 0.0

    def _count(self, now: float, more: int) -> None:
        if self._since:
            self._area += self._reads * (now - self._since)
        self._since = now
        self._reads += more
