"""`bake --all` and `bake --profile A --profile B` as real processes, without an account to bake in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bake.variables import VARIABLES

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[4]
# Nobody's account: there are no credentials, and a call could not leave this machine.
NOBODY = {
    "PATH": os.environ["PATH"],
    "HOME": "/nowhere",
    "PYTHONPATH": str(ROOT),
    "AWS_CONFIG_FILE": "/nowhere",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    **VARIABLES,
}


def bake(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bake.cli", "--profiles", str(ROOT / "profiles"), *words]
    where = {**NOBODY, **environment}
    return subprocess.run(
        command, cwd=folder, env=where, capture_output=True, text=True, check=False, timeout=300
    )


TWO = ("--profile", "g6e-ubuntu", "--profile", "g5-ubuntu")


def test_each_profile_has_a_bake_and_an_end_of_its_own(tmp_path: Path) -> None:
    output = tmp_path / "output"
    done = bake(tmp_path, *TWO, "--json", GITHUB_OUTPUT=str(output))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2, done.stderr
    assert {event["profile"] for event in events if event["event"] == "ended"} == {"g6e-ubuntu", "g5-ubuntu"}
    summary = events[-1]
    assert summary["event"] == "summary" and summary["exit_code"] == 2
    assert [one["profile"] for one in summary["bakes"]] == ["g6e-ubuntu", "g5-ubuntu"]
    assert {one["exit_code"] for one in summary["bakes"]} == {2}
    assert all(one["message"] for one in summary["bakes"])
    for name in ("g6e-ubuntu", "g5-ubuntu"):
        assert f"{name}: error: " in done.stderr
    assert (tmp_path / ".bake/runs").is_dir()  # or one bake would take it away while the other looks
    assert "hf_neverShownAnywhere" not in done.stdout + done.stderr


def test_without_a_terminal_lines_have_their_profile_and_a_table_ends_it(tmp_path: Path) -> None:
    done = bake(tmp_path, *TWO)
    assert done.returncode == 2
    assert "g5-ubuntu  | error: " in done.stderr
    *_, header, first, second = done.stderr.rstrip().splitlines()
    assert header.split() == ["profile", "verdict", "AMI", "time", "exit", "run", "directory"]
    assert first.split()[0] == "g6e-ubuntu" and second.split()[0] == "g5-ubuntu"
    assert done.stdout == ""


def test_what_is_wrong_with_any_profile_starts_none(tmp_path: Path) -> None:
    done = bake(tmp_path, *TWO, "--profile", "g6e-ubunto", "--json")
    assert done.returncode == 2
    (event,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert event["event"] == "failed" and event["exit_code"] == 2
    assert "no profile named 'g6e-ubunto'" in done.stderr and "nothing was started" in done.stderr
    assert not (tmp_path / ".bake").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--all", "--profile", "g6e-ubuntu"), "--all names every profile"),
        (("--all", "plan"), "bake plan takes no --all"),
        ((*TWO, "boot-check", "ami-0123456789abcdef0"), "bake boot-check takes one profile"),
        ((*TWO, "--max-parallel", "0"), "0 is not in the range"),
        ((*TWO, "--seed", "1"), "--seed and --lenient are for rehearsals"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_told(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = bake(tmp_path, *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
