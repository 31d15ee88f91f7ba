"""The command as a person runs it: a real process, its exit code and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BAKE = [sys.executable, "-m", "bake.cli"]
HARMLESS = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def run(
    *arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**HARMLESS, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(
        [*BAKE, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_help_shows_examples_and_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "bake --profile g6e-ubuntu --rehearse" in done.stdout
    assert "130 interrupted" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    heavy = {"boto3", "paramiko", "pydantic", "rich", "moto", "torch", "pytest", "yaml"}
    program = (
        "import sys; sys.argv = ['bake', '--help']\ntry:\n  from bake.cli import main; main()\nfinally:\n  "
    )
    program += f"print('HEAVY', sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "HEAVY []" in done.stdout


def test_without_a_command_the_help_is_shown() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage: bake" in done.stdout


def test_profiles_are_listed() -> None:
    assert "g6e-ubuntu" in run("profiles").stdout.split()
    assert "g6e-ubuntu" in json.loads(run("profiles", "--json").stdout)


@pytest.mark.parametrize("rehearse", [[], ["--rehearse"]], ids=["AWS", "rehearsal"])
def test_an_unknown_profile_lists_the_known_ones(rehearse: list[str]) -> None:
    done = run("--profile", "g6e-ubunto", *rehearse)
    assert done.returncode == 2
    assert "g6e-ubuntu" in done.stderr
    assert "did you mean --profile g6e-ubuntu?" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_variables_are_named_all_at_once(tmp_path: Path) -> None:
    done = run("--profile", "g6e-ubuntu", "--env-file", str(tmp_path / "none"))
    assert done.returncode == 2
    for name in ("BASE_AMI_ID", "SPOT_AWS_REGION", "AWS_REGION", "HF_TOKEN", "BAKE_SUBNET_ID"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_profile_fails_a_rehearsal_before_the_cloud_is_brought_up(tmp_path: Path) -> None:
    text = (ROOT / "profiles/g6e-ubuntu.yaml").read_text().replace("root_volume", "root_volum")
    (tmp_path / "p.yaml").write_text(text)
    done = run("--profile", "p", "--profiles", str(tmp_path), "--rehearse")
    assert done.returncode == 2
    assert "p.yaml:17:1: root_volum: unknown key" in done.stderr
    assert "local cloud" not in done.stderr


@pytest.mark.parametrize("arguments", [["--bogus"], ["bogus"], ["profiles", "--bogus"]], ids=" ".join)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_BAKE_COMPLETE" in done.stdout


def test_a_rehearsal_without_root_says_so_at_once() -> None:
    # In a new user namespace without a mapping nobody is root, and files stay readable.
    done = subprocess.run(
        ["unshare", "--user", *BAKE, "--profile", "g6e-ubuntu", "--rehearse"],
        cwd=ROOT,
        env=HARMLESS,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "root" in done.stderr
    assert "sudo" in done.stderr
    assert "Traceback" not in done.stderr
