"""Workers with broken GPUs beside a healthy one: it finishes every job, and none is dead-lettered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .stress import fleet
from .stress.fleet import GpuFault
from .stress.scenario import StressScenario, run_scenario

JOBS = 20
AFTER_THE_WARM_UP = 1
MOST = {"cublas": 3, "accelerator": 1, "nan": 2}
"""Jobs that fail on a worker before it looks at itself: three that raise what it has no name for, two that
give no picture; one where the process is known to be of no more use."""


def test_sick_workers_burn_few_receives(
    aws: Any, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not started again here: that is the stress run's."""
    monkeypatch.setattr(fleet, "RESTART_SECONDS", float("inf"))
    faulty = tuple(GpuFault(kind, "for ever", AFTER_THE_WARM_UP) for kind in MOST)
    outcome = run_scenario(
        aws, environment, tmp_path, StressScenario(1, JOBS, 0, workers=1, one_in=None, faulty=faulty)
    )
    assert 0 < outcome.wasted.total() <= sum(MOST.values())
    assert outcome.trips >= 1
