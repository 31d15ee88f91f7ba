"""Pauses that double from one try to the next."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

_MOST_DOUBLINGS = 16  # beyond every limit here; keeps the power small


@dataclass(frozen=True)
class Backoff:
    """The first and the longest pause, in seconds."""

    first: float
    longest: float = 900.0

    def pause(self, number: int) -> float:
        """Seconds of pause `number`, counted from 1."""
        return float(min(self.first * 2 ** min(number - 1, _MOST_DOUBLINGS), self.longest))

    def jittered(self) -> Iterator[float]:
        """All pauses in order, each shortened by up to a half, so that workers do not retry in step."""
        return (random.uniform(0.5, 1) * self.pause(number) for number in count(1))  # noqa: S311
