"""Units of systemd, by systemd's own checks and by what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bake.schedules.systemd import command

from .conftest import Folder

# What systemd-analyze calls the exposure of a service: 0 is none, 10 is all.
MOST, OF_A_REHEARSAL = 1.9, 9.5


def unit(folder: Folder, kind: str = "service") -> str:
    return (folder.path / f"systemd/bake-g6e-ubuntu.{kind}").read_text()


def exposure(file: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.mark.integration
@pytest.mark.parametrize(
    "words",
    [
        ("--program", "/bin/true"),
        ("--rehearse", "--program", "/bin/true"),
        ("--user", "root", "--program", "/bin/true"),
    ],
    ids=" ".join,
)
def test_systemd_takes_the_units(folder: Folder, words: tuple[str, ...]) -> None:
    words = (*words, "--program", "/bin/true")
    told = folder.schedule("systemd", *words, profiles=("g6e-ubuntu", "g5-ubuntu"))
    assert len(told["files"]) == 8
    command = ["systemd-analyze", "verify", *(str(folder.path / file) for file in told["files"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    broken = folder.path / "systemd/bake-g6e-ubuntu.timer"
    broken.write_text(broken.read_text().replace("Mon *", "Moon *"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Moon" in done.stderr


@pytest.mark.integration
def test_a_bake_is_hardened_and_a_rehearsal_hardly(folder: Folder) -> None:
    folder.schedule("systemd")
    assert exposure(folder.path / "systemd/bake-g6e-ubuntu.service") <= MOST
    assert exposure(folder.path / "systemd/bake-g6e-ubuntu-sweep.service") <= MOST
    folder.schedule("systemd", "--rehearse", "--out", "rehearsal")
    assert exposure(folder.path / "rehearsal/bake-g6e-ubuntu.service") <= OF_A_REHEARSAL


def test_removal_has_time_and_one_signal_reaches_bake(folder: Folder) -> None:
    folder.schedule("systemd", "--hours", "2.5")
    lines = unit(folder).splitlines()
    for line in ("KillSignal=SIGINT", "KillMode=mixed", "TimeoutStopSec=30min", "RuntimeMaxSec=150min"):
        assert line in lines
    start = next(line for line in lines if line.startswith("ExecStart="))
    assert start.endswith("--profile g6e-ubuntu --if-changed --exclusive")
    assert "OnFailure=bake-g6e-ubuntu-failed.service bake-g6e-ubuntu-sweep.service" in lines
    assert "OnSuccess=bake-g6e-ubuntu-sweep.service" in lines
    preview = (folder.path / "systemd/bake-g6e-ubuntu-sweep.service").read_text()
    assert " sweep --profile g6e-ubuntu\n" in preview and "--yes" not in preview


def test_secrets_come_as_a_credential_and_stand_nowhere(folder: Folder) -> None:
    folder.schedule("systemd")
    text = unit(folder)
    assert f"LoadCredential=env.local:{folder.path}/.env.local" in text
    assert "--env-file ${CREDENTIALS_DIRECTORY}/env.local" in text
    assert "hf_neverShownAnywhere" not in text


def test_the_timer_makes_up_for_what_was_missed_in_the_zone(folder: Folder) -> None:
    folder.schedule("systemd", "--zone", "Europe/Berlin", "--cron", "0 3 1 * 1")
    lines = unit(folder, "timer").splitlines()
    assert [line for line in lines if line.startswith("OnCalendar=")] == [
        "OnCalendar=*-*-01 03:00:00 Europe/Berlin",
        "OnCalendar=Mon *-*-* 03:00:00 Europe/Berlin",
    ]
    assert "Persistent=true" in lines
    assert "RandomizedDelaySec=5min" in lines


def test_a_user_has_a_home_and_nobody_else_needs_one(folder: Folder) -> None:
    folder.schedule("systemd", "--user", "baker", "--out", "a")
    text = (folder.path / "a/bake-g6e-ubuntu.service").read_text()
    assert "User=baker" in text and "DynamicUser" not in text
    told = folder.schedule("systemd", "--program", "/home/somebody/.local/bin/bake", "--out", "b")
    assert any("/home/somebody" in note for note in told["notes"])


def test_a_missing_file_of_variables_is_told(folder: Folder) -> None:
    (folder.path / ".env.local").unlink()
    told = folder.schedule("systemd")
    assert any(".env.local" in note and "does not start" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--user", "a b"), "is no name of a user"),
        (("--user", "x", "--rehearse"), "a rehearsal needs root"),
        (("--runner", "x"), "--runner is for --as github"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cant_work_is_refused(folder: Folder, words: tuple[str, ...], told: str) -> None:
    assert told in folder.refusal("systemd", *words).message


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("/usr/bin/bake", "--json"), "/usr/bin/bake --json"),
        (("/a b/bake", "50%"), '"/a b/bake" 50%%'),
        (("x", "${STATE_DIRECTORY}/runs"), "x ${STATE_DIRECTORY}/runs"),
        (("x", "cost$5", 'say "y"'), 'x cost$$5 "say \\"y\\""'),
    ],
    ids=lambda value: str(value),
)
def test_words_are_quoted_as_systemd_reads_them(words: tuple[str, ...], line: str) -> None:
    assert command(*words) == line
