"""The command line as a real process: exit codes and output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bake.cli import LazyGroup, main_group
from bake.errors import UsageError
from bake.localcloud import Delays, options

pytestmark = pytest.mark.integration
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
    codes = done.stdout[done.stdout.index("Exit codes:") :]
    assert re.findall(r"^ +(\d+) +\S", codes, re.M) == ["0", "1", "2", "3", "4", "5", "6", "130"]


def test_help_lists_every_command_in_one_section() -> None:
    assert isinstance(main_group, LazyGroup)
    named = [name for names in LazyGroup.sections.values() for name in names]
    assert len(named) == len(set(named))
    there = set(main_group.list_commands(click.Context(main_group)))
    assert there <= set(named)
    shown = run("--help").stdout
    titles = [f"{title}:" for title in LazyGroup.sections]
    assert [line for line in shown.splitlines() if line in titles] == titles
    for name in there:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name


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


# --- the folder, the run directory, the terminal ------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["--profile", "x"], ["plan", "--profile", "x"], ["profiles"]], ids=" ".join
)
def test_a_folder_without_profiles_is_named_in_full(tmp_path: Path, command: list[str]) -> None:
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path}/profiles does not exist" in done.stderr
    assert "--profiles" in done.stderr


def in_the_way(folder: Path) -> Path:
    (folder / "runs").write_text("a file")
    return folder / "runs"


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("a file")
    return folder / "file/deep/runs"


def read_only(folder: Path) -> Path:
    return Path("/proc/runs")


def too_long(folder: Path) -> Path:
    return folder / ("x" * 300)


@pytest.mark.parametrize("rehearse", [[], ["--rehearse"]], ids=["AWS", "rehearsal"])
@pytest.mark.parametrize("place", [in_the_way, below_a_file, read_only, too_long])
def test_a_run_directory_that_cant_be_made(tmp_path: Path, place: Any, rehearse: list[str]) -> None:
    """Known before the profile is planned, and before the local cloud is brought up."""
    done = run("--profile", "g6e-ubuntu", "--runs", str(place(tmp_path)), *rehearse)
    assert done.returncode == 2
    assert str(place(tmp_path)) in done.stderr
    assert "Traceback" not in done.stderr
    assert "HF_TOKEN" not in done.stderr  # which is not set, as the plan would say
    assert "==> local cloud" not in done.stderr


def test_looking_at_the_run_directory_leaves_nothing(tmp_path: Path) -> None:
    assert run("--profile", "none", "--runs", str(tmp_path / "deep/runs")).returncode == 2
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs/earlier").mkdir(parents=True)
    assert run("--profile", "none", "--runs", str(tmp_path / "runs")).returncode == 2
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["earlier"]


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8:strict"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", ["profiles", "profiles --json", "--profile образ", "--help"])
def test_what_the_terminal_cant_show_is_replaced(tmp_path: Path, encoding: str, command: str) -> None:
    (tmp_path / "образ→.yaml").write_text("базовый: ✓\n", encoding="utf-8")
    (tmp_path / os.fsdecode(b"\xff.yaml")).write_text("a: 1\n")
    environment = {**HARMLESS, "PYTHONPATH": str(ROOT), "HF_TOKEN": "x", **ENCODINGS[encoding]}
    done = subprocess.run(
        [*BAKE, "--profiles", str(tmp_path), *command.split()],
        cwd=tmp_path,
        env={**environment, "ODD": os.fsdecode(b"\xff")},
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.stdout + done.stderr


def test_the_screens_replace_it_too() -> None:
    """Plain lines, JSON, and rich's boxes and spinner on a terminal."""
    program = """
import sys
from unittest import mock
from bake import cli
from bake.progress import JsonScreen, PlainScreen
from bake.terminal import RichScreen

def show():
    for screen in (PlainScreen(), JsonScreen(), RichScreen()):
        for text in ("✓ образ → …", chr(0xDCFF)):
            screen.show({"event": "step_started", "step": text})
            screen.show({"event": "note", "text": text})
            screen.show({"event": "plan", "text": text})
            screen.show({"event": "transfer", "what": text + " bytes", "done": 1, "total": 2})
            screen.show({"event": "step_ended", "step": text, "outcome": "done", "seconds": 1.0})
        screen.close()
    return 0

with mock.patch.object(cli, "_run", show):
    cli.main()
"""
    for encoding in ("ascii", "latin-1", "utf-8:strict"):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("✓ образ → …", r"\u2713 \u043e \u2192")],
            env={**HARMLESS, "PYTHONIOENCODING": encoding, "FORCE_COLOR": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    "arguments", [("profiles", "--json"), ("profiles", "--schema"), ("--help",)], ids=" ".join
)
def test_a_reader_that_has_gone_is_no_traceback(arguments: tuple[str, ...]) -> None:
    """`bake profiles --schema | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*BAKE, *arguments],
        env={**HARMLESS, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_malformed_ami_id_is_refused_before_any_call() -> None:
    done = run("boot-check", "flux1-dev-g6e-ubuntu")
    assert done.returncode == 2
    assert "'flux1-dev-g6e-ubuntu' is not an AMI id" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback(closed: str) -> None:
    command = f"{sys.executable} -m bake.cli --profile g6e-ubunto {closed}"
    done = subprocess.run(
        ["sh", "-c", command],
        env={**HARMLESS, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "command", [(), ("plan",), ("approve",), ("lock",), ("boot-check",), ("local", "up")], ids=" ".join
)
def test_what_uses_the_local_cloud_takes_trust_guests(command: tuple[str, ...]) -> None:
    found = CliRunner().invoke(main_group, [*command, "--help"])
    assert "--trust-guests" in found.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["--trust-guests", "ask"], "True", id="before"),
        pytest.param(["ask", "--trust-guests"], "True", id="behind"),
        pytest.param(["ask"], "False", id="not at all"),
    ],
)
def test_trust_guests_counts_before_the_command_and_behind_it(words: list[str], expected: str) -> None:
    @click.group()
    @options.trust_guests
    def group() -> None:
        pass

    @group.command()
    @options.trust_guests
    def ask() -> None:
        click.echo(options.trusted())

    assert CliRunner().invoke(group, words).output == f"{expected}\n"


@pytest.mark.parametrize("command", [(), ("local", "up")], ids=" ".join)
def test_what_starts_a_local_cloud_takes_its_delays(command: tuple[str, ...]) -> None:
    found = CliRunner().invoke(main_group, [*command, "--help"])
    assert "--seed" in found.output and "--lenient" in found.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["--seed", "7", "ask"], Delays(7), id="before"),
        pytest.param(["ask", "--lenient"], Delays(lenient=True), id="behind"),
        pytest.param(["--seed", "0", "ask", "--lenient"], Delays(0, lenient=True), id="both"),
        pytest.param(["ask"], Delays(), id="not at all"),
    ],
)
def test_delays_count_before_the_command_and_behind_it(words: list[str], expected: Delays) -> None:
    @click.group()
    @options.delays
    def group() -> None:
        pass

    @group.command()
    @options.delays
    def ask() -> None:
        click.echo(options.asked_delays())

    assert CliRunner().invoke(group, words).output == f"{expected}\n"


@pytest.mark.parametrize("option", [("--lenient",), ("--seed", "3")], ids=" ".join)
def test_a_bake_on_aws_takes_no_delays(option: tuple[str, ...]) -> None:
    found = CliRunner().invoke(main_group, ["--profile", "g6e-ubuntu", *option])
    assert isinstance(found.exception, UsageError)
    assert "--rehearse" in str(found.exception.hint)
