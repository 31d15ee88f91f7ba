"""The cold start of the sample report."""

from __future__ import annotations

from bake.checks.cold_start import ColdStart, StartStage

COLD_START = ColdStart(
    seconds=58.0,
    max_seconds=120,
    stages=(
        StartStage(
            name="kernel",
            began=0.0,
            seconds=8.0,
            bytes=None,
            mb_per_s=None,
            floor_seconds=None,
            ratio=None,
        ),
        StartStage(
            name="warm",
            began=9.0,
            seconds=40.0,
            bytes=3_000_000_000,
            mb_per_s=75.0,
            floor_seconds=30.0,
            ratio=1.33,
            beside=True,
            note="start on cuda",
            facts={"stages": [{"name": "libraries", "bytes": 1_000_000_000, "seconds": 12.0}]},
        ),
    ),
    bytes=3_000_000_000,
    floor_mb_per_s=100.0,
    floor_from="the volume's throughput",
    floor_seconds=30.0,
    ratio=1.93,
    hydration_mb_per_s=75.0,
    hydration_bytes=3_000_000_000,
    hydration_from="the warm-up",
    volume="gp3",
    notes=("flux-worker.service was restarted once",),
)
