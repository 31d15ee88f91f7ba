"""The probes run on the machine, under whatever Python its operating system has."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bake.checks.probes import MODULES

ROOT = Path(__file__).parents[2]
PROBES = sorted((ROOT / "bake" / "checks" / "probes").glob("[a-z]*.py"))
ON_THE_MACHINE = [*PROBES, ROOT / "provision" / "seal.py"]
# The model probe runs in the worker's environment.
WORKERS = {"torch", "huggingface_hub"}


@pytest.mark.parametrize("program", ON_THE_MACHINE, ids=lambda path: path.name)
def test_runs_under_an_old_python(program: Path) -> None:
    """Amazon Linux 2023 has 3.9, Ubuntu 22.04 has 3.10."""
    ast.parse(program.read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize("program", ON_THE_MACHINE, ids=lambda path: path.name)
def test_needs_the_standard_library_alone(program: Path) -> None:
    allowed = sys.stdlib_module_names | (WORKERS if program.stem == "model" else set())
    together = [{name, *more} for name, more in MODULES.items()]  # sent in one
    allowed |= set().union(*(names for names in together if program.stem in names))
    for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in allowed


def test_there_are_probes() -> None:
    assert {path.stem for path in PROBES} == {
        "system", "rights", "packages", "cache", "checkpoint", "secrets", "model", "power",
        "commands", "inventory", "installed", "sources", "updates", "first_boot", "start", "boot_times",
    }  # fmt: skip


def test_what_every_program_says_is_nobodys_answer() -> None:
    """As where ld.so.preload names a library that is gone; what a command says itself is left."""
    commands = {
        "nothing": "find / -maxdepth 0 -name x 2>&1",
        "output": "echo found; env echo too",
        "error": "find /nowhere 2>&1",
        "blank": "printf 'a\\n\\nb\\n'",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "bake/checks/probes/commands.py")],
        input=json.dumps({"commands": commands}),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LD_PRELOAD": "/opt/agent/lib/libagent.so"},
    )
    assert "cannot be preloaded" in done.stderr
    answers = json.loads(done.stdout)["answers"]
    assert answers["nothing"] == [0, "", ""]
    assert answers["output"] == [0, "found\ntoo\n", ""]
    assert answers["error"][0] == 1 and "No such file" in answers["error"][1]
    assert "preloaded" not in answers["error"][1]
    assert answers["blank"][1] == "a\n\nb\n"
