"""`bake costs` as a process: what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bake.localcloud.api import price_list
from tests.bake.conftest import HOME, SPOT, PlanCloud

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


def bake(cloud: PlanCloud, directory: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bake.cli", "--profiles", str(ROOT / "profiles"), "costs", *arguments],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            "AWS_ENDPOINT_URL": cloud.endpoint,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "SPOT_AWS_REGION": SPOT,
            "AWS_REGION": HOME,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def record(folder: Path) -> str:
    told = {
        "job": {"id": "cat-1", "prompt": "a secret cat", "images": 1},
        "model": {"device": "NVIDIA L40S"},
        "seconds": {"draw": 15.0},
    }
    (folder / "cat-1.json").write_text(json.dumps(told))
    return "cat-1.json"


def test_it_needs_two_regions_and_nothing_else(plan_cloud: PlanCloud, tmp_path: Path) -> None:
    plan_cloud.front.answers["GetProducts"] = lambda request: (200, dict(price_list.answer(request)))
    known = ("--profile", "g6e-ubuntu", "--record", record(tmp_path), "--image-mb", "2")
    code, shown, told = bake(plan_cloud, tmp_path, *known)
    assert (code, told) == (0, "")
    assert f"instances in {SPOT}; queue, bucket and bus in {HOME}" in shown
    assert "8      in all" in shown
    assert "measured: the mean of 1 image in 1 record, on NVIDIA L40S" in shown
    assert "cat" not in shown
    code, shown, told = bake(plan_cloud, tmp_path, *known, "--json")
    answer = json.loads(shown)
    assert (code, answer["venue"], answer["job"]["renewals"]) == (0, "AWS", 0)
    [on_demand, _] = answer["types"]
    assert on_demand["seconds"]["value"] == 15.0
    gib = 0.10 * plan_cloud.profile().root_volume.size_gib / 730
    beside = 35e-6 + (0.10 + 0.05) * 2e-3
    assert on_demand["image"] == {"dollars": pytest.approx((0.4 + gib) * 15 / 3600 + beside), "without": []}


def test_without_a_price_list_it_says_so_and_ends_well(plan_cloud: PlanCloud, tmp_path: Path) -> None:
    code, shown, _ = bake(plan_cloud, tmp_path, "--profile", "g6e-ubuntu")
    assert code == 0
    assert "$" not in shown.replace("$0.00", "")
    assert "  - S3 PUT: AWS answers 500" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--profile NAME is missing"),
        (("--profile", "g6e-ubuntu", "--record", "none.json"), "none.json"),
        (("--profile", "g6e-ubuntu", "--record", "empty.json"), "--record empty.json is no record of a job"),
        (("--profile", "g6e-ubuntu", "--seconds-per-image", "0"), "--seconds-per-image"),
        (
            ("--profile", "g6e-ubuntu", "--seconds-per-image", "9", "--record", "cat-1.json"),
            "--seconds-per-image and --record both say how long an image takes",
        ),
    ],
    ids=["profile", "no-file", "no-record", "no-time", "both"],
)
def test_what_is_wrong_is_told_before_anybody_is_asked(
    plan_cloud: PlanCloud, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    record(tmp_path)
    (tmp_path / "empty.json").write_text("")
    code, shown, error = bake(plan_cloud, tmp_path, *arguments)
    assert (code, shown) == (2, "")
    assert told in error
