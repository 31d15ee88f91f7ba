"""Count failed tries, wait between them, and give up. The builder's tools have no tenacity, and need none."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from prefetch.events import say
from prefetch.failures import Refused, Transient


@dataclass(frozen=True)
class Patience:
    """Seconds without a byte until a connection counts as stalled, and fruitless tries in a row."""

    stall: float = 30.0
    tries: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0


class Tries:
    """Counts fruitless tries in a row."""

    def __init__(self, patience: Patience, what: str) -> None:
        self._patience = patience
        self._what = what
        self.failed = 0

    def progressed(self) -> None:
        """Reset the count."""
        self.failed = 0

    def again(self, error: Transient) -> None:
        """Report why, and wait before the next try; raises Refused after too many."""
        self.failed += 1
        if self.failed >= self._patience.tries:
            raise Refused(
                "unreachable",
                f"{self._what}: {error}, {self.failed} times in a row",
                "is the Hub up (https://status.huggingface.co), and may the builder's subnet reach it? "
                "Bake again: it goes on where this ended",
            )
        wait = self._patience.first_wait * 2 ** (self.failed - 1) * random.uniform(0.8, 1.2)  # noqa: S311
        wait = min(wait, self._patience.longest_wait) if error.wait is None else error.wait
        say("retry", file=self._what, why=str(error), attempt=self.failed, wait=round(wait, 1))
        time.sleep(wait)
