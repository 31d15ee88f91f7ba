"""`bake costs --rehearse`: whoever bakes may ask for all prices, and the local cloud has them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bake.localcloud import LocalCloud

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]


def test_all_prices_are_known_under_the_policy_of_whoever_bakes(cloud: LocalCloud, tmp_path: Path) -> None:
    bake = [sys.executable, "-m", "bake.cli", "--profiles", str(ROOT / "profiles")]
    done = subprocess.run(
        [*bake, "costs", "--profile", "g6e-ubuntu", "--rehearse", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["venue"] == "REHEARSAL"
    assert [name for name, price in told["prices"].items() if price["dollars"] is None] == []
    assert {one["market"]: one["image"]["without"] for one in told["types"]} == {"on-demand": [], "spot": []}
    assert cloud.endpoint
