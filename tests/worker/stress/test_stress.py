"""300 jobs, two workers, kill -9, and every fifth call to AWS failing: nothing lost, nothing drawn twice."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from .proof import Storm, prove

JOBS = 300
KILLS = 6


def test_nothing_is_lost_and_nothing_drawn_twice(
    aws: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    """STRESS_SEED repeats a run: the same messages, faults, outages and moments of the kills."""
    seed = int(os.environ.get("STRESS_SEED") or random.randrange(2**32))
    print(f"STRESS_SEED={seed}")  # pytest shows it where the test fails
    print(prove(aws, environment, tmp_path, Storm(seed, jobs=JOBS, kills=KILLS)))
