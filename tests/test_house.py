"""The house style, checked by tools."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bake.cli import main_group

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent


def files(pattern: str) -> list[Path]:
    """Tracked and new files that match, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in sorted(set(listed.stdout.splitlines())) if (ROOT / name).exists()]


def clean(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.integration
def test_ruff_check_passes() -> None:
    clean(str(TOOLS / "ruff"), "check", ".")


@pytest.mark.integration
def test_ruff_format_passes() -> None:
    clean(str(TOOLS / "ruff"), "format", "--check", ".")


@pytest.mark.integration
def test_mypy_passes() -> None:
    clean(str(TOOLS / "mypy"))


@pytest.mark.integration
def test_shellcheck_passes() -> None:
    scripts = [*files("*.sh"), ROOT / ".ci/run"]
    assert len(scripts) > 4
    clean(str(TOOLS / "shellcheck"), *map(str, scripts))


def test_shell_scripts_stop_at_the_first_error() -> None:
    for script in files("*.sh"):
        assert "set -euo pipefail" in script.read_text(), script


def test_modules_have_one_purpose() -> None:
    for file in files("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file
        assert file.stem not in ("utils", "util", "common", "helpers", "helper", "manager"), file


def test_functions_are_short() -> None:
    lengths = []
    for file in [*files("bake/*.py"), *files("worker/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                lengths.append(node.end_lineno - node.lineno + 1)  # type: ignore[operator]
                assert lengths[-1] <= 60, f"{file}:{node.lineno} {node.name}"
    assert sorted(lengths)[len(lengths) // 2] <= 12


def test_the_recipe_fits_on_one_screen() -> None:
    assert len((ROOT / "bake/pipeline.py").read_text().splitlines()) <= 65


def test_public_definitions_have_docstrings() -> None:
    for file in [*files("bake/*.py"), *files("worker/flux_worker/*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if file.read_text(encoding="utf-8").strip():
            assert ast.get_docstring(tree), file
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{file}:{node.lineno} {node.name}"


def test_only_aws_py_makes_boto3_clients() -> None:
    for file in files("bake/*.py"):
        # The local cloud is the other side of the wire: it speaks to itself as any client would.
        if file.name == "aws.py" or "localcloud" in file.parts:
            continue
        assert not re.search(r"^\s*(from|import) boto", file.read_text(encoding="utf-8"), re.M), file


def commands(group: click.Group, prefix: str) -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((f"{prefix} {name}", command))
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix} {name}")
    return found


def every_command() -> list[tuple[str, click.Command]]:
    from flux_worker.cli import main as worker

    return [*commands(main_group, "bake"), *commands(worker, "flux-worker")]


@pytest.mark.parametrize(("name", "command"), every_command(), ids=lambda value: str(value))
def test_every_command_has_help_with_an_example(name: str, command: click.Command) -> None:
    assert command.help
    assert "Example" in command.help, f"{name} --help shows no example"


@pytest.mark.integration
def test_the_unit_tier_is_large() -> None:
    """tests/conftest.py holds that it is light."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "-qq", "--collect-only", "-n0", "-m", "unit"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stdout
    counts = [int(line.rsplit(": ", 1)[1]) for line in listed.stdout.splitlines() if ".py: " in line]
    assert sum(counts) >= 900


@pytest.mark.parametrize("name", ["Unreleased", "0.1.0"])
def test_the_changelog_is_kept(name: str) -> None:
    assert f"## [{name}]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_lock_or_recipe_names_an_index_host() -> None:
    for file in files("*.txt"):
        assert "index-url" not in file.read_text(), file
