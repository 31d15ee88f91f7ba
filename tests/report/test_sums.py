"""SHA256SUMS: what coreutils checks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bake.report.sums import NAME, sums

pytestmark = pytest.mark.integration

FILES = ("report.json", "report.html", "logs/seal.log", "logs/two words.log", "facts/scan.json", "logs/lock")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in FILES:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
    return tmp_path


def write(directory: Path) -> str:
    text = sums(directory)
    (directory / NAME).write_bytes(os.fsencode(text))
    return text


def check(directory: Path) -> subprocess.CompletedProcess[bytes]:
    command = ["sha256sum", "--check", "--strict", "--quiet", NAME]
    return subprocess.run(command, cwd=directory, capture_output=True, check=False)


def test_coreutils_finds_every_file_unchanged(directory: Path) -> None:
    text = write(directory)
    assert [line.split("  ", 1)[1] for line in text.splitlines()] == sorted(FILES)
    assert check(directory).returncode == 0, check(directory).stderr


def test_a_changed_and_a_missing_file_are_found(directory: Path) -> None:
    write(directory)
    (directory / "report.html").write_text("<h1>good</h1>")
    (directory / "logs/seal.log").unlink()
    done = check(directory)
    assert done.returncode == 1
    assert b"report.html: FAILED" in done.stdout
    assert b"logs/seal.log: FAILED open or read" in done.stdout


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a\nb", id="newline"),
        pytest.param("a\\nb", id="backslash"),
        pytest.param("a\rb", id="carriage return"),
        pytest.param("end\r", id="carriage return at the end"),
        pytest.param(" leading", id="space"),
        pytest.param("*star", id="star"),
        pytest.param("\x1b[31m\u202e", id="control and bidi"),
        pytest.param(os.fsdecode(b"latin-\xe9"), id="not UTF-8"),
    ],
)
def test_hostile_names_are_checked_as_well(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("content")
    assert write(tmp_path).count("\n") == 1
    assert check(tmp_path).returncode == 0, check(tmp_path).stderr
    (tmp_path / name).write_text("other content")
    assert check(tmp_path).returncode == 1


def test_the_sums_come_out_as_coreutils_prints_them(directory: Path) -> None:
    (directory / "a\\b\nc").write_text("x")
    names = sorted([*FILES, "a\\b\nc"])
    printed = subprocess.run(["sha256sum", *names], cwd=directory, capture_output=True, text=True, check=True)
    assert sums(directory) == printed.stdout


def test_what_changes_later_has_no_sum(directory: Path) -> None:
    """A run's lock is taken by whoever looks whether it goes on; the sums are made after the report."""
    for name in (NAME, "lock", "resume.jsonl"):
        (directory / name).write_text("x")
    assert {line.split("  ", 1)[1] for line in sums(directory).splitlines()} == set(FILES)


def test_links_are_not_followed(directory: Path) -> None:
    (directory / "out").symlink_to("/etc/hostname")
    (directory / "loop").symlink_to(directory)
    os.mkfifo(directory / "pipe")
    assert {line.split("  ", 1)[1] for line in sums(directory).splitlines()} == set(FILES)
