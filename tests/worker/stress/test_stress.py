"""Jobs for two workers, kill -9, every fifth call to AWS failing, and a third worker whose GPU breaks.

Some jobs always fail and some have a forbidden prefix. No other job is lost or dead-lettered, and none runs
twice.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from .fleet import GpuFault
from .scenario import StressScenario, run_scenario

SHORT = {"jobs": 30, "kills": 1}
WHOLE = {"jobs": 300, "kills": 6, "forbidden": 3, "poison": 3}


@pytest.mark.parametrize(
    ("size", "fault"),
    [
        pytest.param(SHORT, GpuFault("cublas", "until restarted", after=3), id="30 jobs"),
        pytest.param(WHOLE, None, id="300 jobs", marks=pytest.mark.long),
    ],
)
def test_nothing_is_lost_and_nothing_drawn_twice(
    aws: Any, environment: dict[str, str], tmp_path: Path, size: dict[str, int], fault: GpuFault | None
) -> None:
    """STRESS_SEED repeats a run: the same messages, faults, sickness, outages and moments of the kills."""
    seed = int(os.environ.get("STRESS_SEED") or random.randrange(2**32))
    print(f"STRESS_SEED={seed}")  # pytest shows it where the test fails
    scenario = StressScenario(seed, **size, faulty=(fault or GpuFault.pick(seed),))
    print(run_scenario(aws, environment, tmp_path, scenario))
