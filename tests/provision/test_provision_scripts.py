"""The provisioning scripts, as far as they can be checked without running them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROVISION = Path(__file__).parents[2] / "provision"
SCRIPTS = sorted((PROVISION / "scripts").glob("*.sh"))
named = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)


def test_order() -> None:
    names = [script.name for script in SCRIPTS]
    assert names[0] == "00-tools.sh", "the prefetch waits for the tools alone"
    assert all(re.fullmatch(r"\d\d-[a-z-]+\.sh", name) for name in names)


@named
def test_says_why_it_exists(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# Why: ")


@named
def test_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111 == 0o111


@named
def test_speaks_of_packages_through_the_library_alone(script: Path) -> None:
    """apt and dnf differ in provision/lib/packages.sh and nowhere else."""
    text = re.sub(r"#.*", "", script.read_text(encoding="utf-8"))
    managers = r"apt|apt-get|apt-mark|dpkg|dpkg-query|dnf|yum|rpm"
    assert not re.search(rf"(^|[|&;(!]|\bif|\bthen)\s*({managers})\s", text, re.MULTILINE)


@named
def test_leaves_the_system_python_alone(script: Path) -> None:
    """Only a virtual environment's own Python installs anything."""
    text = re.sub(r"#.*", "", script.read_text(encoding="utf-8"))
    assert not re.search(r"^\s*(pip3?|python3? -m pip|easy_install) ", text, re.MULTILINE)
    assert "--break-system-packages" not in text


@named
def test_installs_python_packages_by_hash_only(script: Path) -> None:
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    for call in re.findall(r"^.*pip (?:install|sync) .*$", text, re.MULTILINE):
        assert "--require-hashes" in call or "--no-deps --no-index" in call, call
