"""What reports say of starts: the trace on an image, and how long an instance took."""

from __future__ import annotations

from bake.checks.cold_start import ColdStart, StartStage
from bake.report.model import StartTrace, TraceStage

TRACE = StartTrace(
    recorded="start on cuda",
    sha256="7a" * 32,
    stages=(
        TraceStage(name="libraries", bytes=1_200_000_000, files=5100),
        TraceStage(name="text_encoders", bytes=9_770_792_936, files=20),
        TraceStage(name="transformer", bytes=23_802_953_840, files=3),
        TraceStage(name="vae", bytes=167_666_902, files=1),
    ),
)
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
