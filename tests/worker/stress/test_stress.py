"""300 jobs, two workers, kill -9, every fifth call to AWS failing, and a third worker whose GPU breaks.

Some jobs always fail and some have a forbidden prefix. No other job is lost or dead-lettered, and none runs
twice.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from .fleet import GpuFault
from .scenario import StressScenario, run_scenario

JOBS = 300
KILLS = 6
FORBIDDEN = POISON = 3


def test_nothing_is_lost_and_nothing_drawn_twice(
    aws: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    """STRESS_SEED repeats a run: the same messages, faults, sickness, outages and moments of the kills."""
    seed = int(os.environ.get("STRESS_SEED") or random.randrange(2**32))
    print(f"STRESS_SEED={seed}")  # pytest shows it where the test fails
    faulty = (GpuFault.pick(seed),)
    scenario = StressScenario(seed, JOBS, KILLS, faulty=faulty, forbidden=FORBIDDEN, poison=POISON)
    print(run_scenario(aws, environment, tmp_path, scenario))
