"""The inf2 profiles bake a verified Neuron stack on a type that fits, and are refused on inf2.xlarge."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bake.localcloud.cloud import LocalCloud
from bake.localcloud.neuron import STUBS

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
PROFILES = ["inf2-ubuntu", pytest.param("inf2-amazon-linux", marks=pytest.mark.long)]


def rehearse(profile: str, profiles: Path, runs: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "bake.cli",
        "--profiles",
        str(profiles),
        "--profile",
        profile,
        "--rehearse",
    ]
    return subprocess.run(
        [*command, "--json", "--runs", str(runs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.mark.parametrize("name", PROFILES)
def test_inf2_xlarge_is_refused_before_anything_starts(cloud: LocalCloud, tmp_path: Path, name: str) -> None:
    done = rehearse(name, ROOT / "profiles", tmp_path)
    assert done.returncode == 2
    assert "FLUX.1-dev in bf16 does not fit inf2.xlarge" in done.stderr
    assert "inf2.24xlarge" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PROFILES)
def test_a_type_that_fits_gets_a_verified_neuron_stack(cloud: LocalCloud, tmp_path: Path, name: str) -> None:
    profiles = tmp_path / "profiles"
    shutil.copytree(ROOT / "profiles", profiles)
    (profiles / "large.yaml").write_text(f"extends: {name}\n\nbuilder:\n  instance_type: inf2.24xlarge\n")
    done = rehearse("large", profiles, tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    events: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    released = next(event for event in events if event["event"] == "released")
    manifest = json.loads((Path(released["directory"]) / "manifest.json").read_text())
    stack = {check["id"]: check["outcome"] for check in manifest["checks"] if "neuron_stack" in check["id"]}
    assert len(stack) == len(STUBS)
    assert set(stack.values()) == {"passed"}
    notes = manifest["notes"]
    assert "the Neuron stack is there already and left alone" in notes
    assert all(
        any(note.startswith(f"{package} {version}") for note in notes) for package, version in STUBS.items()
    )
    assert any("draws on the CPU" in warning for warning in manifest["plan"]["warnings"])
    outcomes = {check["id"]: check["outcome"] for check in manifest["checks"]}
    assert outcomes["drivers::compiled_for_neuron"] == "passed"
