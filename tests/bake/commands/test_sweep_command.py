"""`bake sweep` as a process: what it prints, its exit codes, and where it looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bake.localcloud.api.faults.faults import AwsFault
from tests.bake.conftest import PlanCloud
from tests.bake.lifecycle.account import HOME, SPOT, Account, run_id
from tests.bake.lifecycle.conftest import account

__all__ = ["account"]
pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


def bake(cloud: PlanCloud, directory: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    known = {"SPOT_AWS_REGION": SPOT, "AWS_REGION": HOME, **variables}
    done = subprocess.run(
        [sys.executable, "-m", "bake.cli", "sweep", *arguments],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PYTHONPATH": str(ROOT),
            "AWS_ENDPOINT_URL": cloud.endpoint,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            **{name: value for name, value in known.items() if value},
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_it_shows_then_removes(account: Account, plan_cloud: PlanCloud, tmp_path: Path) -> None:
    run, living = run_id(), run_id()
    volume, queue = (account.make(kind, account.tags(run)) for kind in ("volume", "queue"))
    account.make("volume", account.tags(living, hours=3))
    code, shown, _ = bake(plan_cloud, tmp_path)
    assert code == 0
    assert volume in shown
    assert f"{run}  g6e-ubuntu" in shown
    assert "whose price is not known" in shown
    assert f"{living} (g6e-ubuntu): 1 things; its run has a lease until" in shown
    assert shown.rstrip().endswith("nothing was changed: add --yes to remove what runs left")
    code, shown, told = bake(plan_cloud, tmp_path, "--yes", "--run", run)
    assert (code, shown.rstrip().endswith("2 removed")) == (0, True), told
    assert living not in shown
    assert f"removing volume {volume}" in told
    code, shown, _ = bake(plan_cloud, tmp_path, "--yes", "--run", run)
    assert (code, shown.splitlines()[0]) == (0, "no run whose lease has ended left anything")
    assert queue not in shown


def test_json_is_one_object(account: Account, plan_cloud: PlanCloud, tmp_path: Path) -> None:
    run = run_id()
    volume = account.make("volume", account.tags(run))
    hostile = account.make("queue", account.tags(run_id(), expires="\x1b[31m\n$(reboot)"))
    code, shown, _ = bake(plan_cloud, tmp_path, "--json")
    told = {one["id"]: one for one in json.loads(shown)["things"]}
    assert (code, told[volume]["outcome"], told[hostile]["outcome"]) == (0, "sweep", "left alone")
    assert told[volume]["by_hand"].startswith("aws ec2 delete-volume --region us-west-2 ")
    assert "swept" not in json.loads(shown)
    code, shown, _ = bake(plan_cloud, tmp_path, "--json", "--yes", "--run", run)
    assert (code, json.loads(shown)["swept"]["removed"]) == (0, [volume])
    code, shown, _ = bake(plan_cloud, tmp_path)
    assert "\x1b" not in shown


def test_what_could_not_be_looked_at_ends_with_5_and_hides_nothing(
    account: Account, plan_cloud: PlanCloud, tmp_path: Path
) -> None:
    run = run_id()
    volume = account.make("volume", account.tags(run))
    plan_cloud.faults.add(AwsFault(service="sqs", action="ListQueues", kind="refuse", times=None))
    code, shown, told = bake(plan_cloud, tmp_path, "--yes", "--run", run)
    assert (code, shown.rstrip().endswith("1 removed")) == (5, True)
    assert f"error: queues in {HOME} were not looked at: AWS answers AccessDenied" in told
    assert volume in shown


def test_what_is_left_behind_ends_with_6_and_the_command(
    account: Account, plan_cloud: PlanCloud, tmp_path: Path
) -> None:
    run = run_id()
    volume = account.make("volume", account.tags(run))
    plan_cloud.faults.add(AwsFault(service="ec2", action="DeleteVolume", kind="refuse", times=None))
    code, _, told = bake(plan_cloud, tmp_path, "--yes", "--run", run)
    assert code == 6
    last = told.rstrip().splitlines()[-1]
    assert last.startswith(f"left behind: volume {volume} could not be removed (")
    assert f"remove it with: aws ec2 delete-volume --region {SPOT} --volume-id {volume}" in last


@pytest.mark.parametrize("arguments", [[], ["--yes"]], ids=["preview", "yes"])
def test_without_a_region_it_says_how(plan_cloud: PlanCloud, tmp_path: Path, arguments: list[str]) -> None:
    code, _, told = bake(plan_cloud, tmp_path, *arguments, SPOT_AWS_REGION="")
    assert code == 2
    assert told == (
        "error: not set: SPOT_AWS_REGION\nhint: set them, name the --profile, or say --region REGION\n"
    )


def test_regions_can_be_named(account: Account, plan_cloud: PlanCloud, tmp_path: Path) -> None:
    run = run_id()
    volume, queue = (account.make(kind, account.tags(run)) for kind in ("volume", "queue"))
    bare = {"SPOT_AWS_REGION": "", "AWS_REGION": ""}
    _, shown, _ = bake(plan_cloud, tmp_path, "--json", "--run", run, "--region", SPOT, **bare)
    assert [one["id"] for one in json.loads(shown)["things"]] == [volume]
    both = ("--region", SPOT, "--region", HOME, "--region", SPOT)
    _, shown, _ = bake(plan_cloud, tmp_path, "--json", "--run", run, *both, **bare)
    assert {one["id"] for one in json.loads(shown)["things"]} == {volume, queue}


def test_a_profile_names_the_regions_and_narrows(
    account: Account, plan_cloud: PlanCloud, tmp_path: Path
) -> None:
    run, other = run_id(), run_id()
    volume = account.make("volume", account.tags(run))
    account.make("volume", account.tags(other, profile="another"))
    chosen = ("--profile", "g6e-ubuntu", "--json")
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    code, shown, told = bake(plan_cloud, tmp_path, *chosen)
    assert code == 0, told
    runs = {one["run"] for one in json.loads(shown)["things"]}
    assert (run in runs, other in runs) == (True, False)
    assert volume in shown
