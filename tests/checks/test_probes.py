"""The probes run on the machine, under whatever Python its operating system has."""

from __future__ import annotations

import ast
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
    allowed |= set(MODULES.get(program.stem, ()))
    for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in allowed


def test_there_are_probes() -> None:
    assert {path.stem for path in PROBES} == {
        "system", "rights", "packages", "cache", "checkpoint", "secrets", "model", "power",
        "commands", "inventory", "installed", "first_boot",
    }  # fmt: skip
