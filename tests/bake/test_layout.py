"""Paths on the image and on the builder are stated in `bake/layout.py`, and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bake import layout

ROOT = Path(__file__).parents[2]
PROVISION = ROOT / "provision"
PATHS = sorted(
    {value for value in vars(layout).values() if isinstance(value, str) and value.startswith("/")}
    - {layout.UNITS, layout.UNITS_IN_MEMORY}  # the system's own, and below it nothing but a glob is named
)
NAMED = re.compile("|".join(rf"{re.escape(path)}(?![\w-])" for path in reversed(PATHS)))
# Runs on the machine, where there is no `bake` to import.
ALONE = {ROOT / "bake/checks/probes", ROOT / "bake/builder_lease/program.py"}
# Its own machines, which have their paths on the host.
NOT_THE_IMAGE = {ROOT / "bake/localcloud"}


def python_files() -> list[Path]:
    files = sorted((ROOT / "bake").rglob("*.py"))
    apart = ALONE | NOT_THE_IMAGE
    return [file for file in files if file.name != "layout.py" and not apart & {file, *file.parents}]


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """String literals that are not docstrings."""
    nodes = [node for node in ast.walk(tree) if hasattr(node, "body")]
    said = {
        id(line.value)
        for node in nodes
        if isinstance(node.body, list)
        for line in node.body
        if isinstance(line, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node


def test_no_path_of_the_layout_stands_anywhere_else_in_bake() -> None:
    twice = [
        f"{file.relative_to(ROOT)}:{text.lineno}: {found[0]}"
        for file in python_files()
        for text in texts(ast.parse(file.read_text(encoding="utf-8")))
        if (found := NAMED.search(text.value))
    ]
    assert twice == []


def lines(file: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.lstrip().startswith("#"):
            yield number, line


def test_scripts_and_templates_get_the_images_paths_as_settings() -> None:
    """What a script finds its own files by, /opt/bake, stands in its first lines."""
    of_the_image = re.compile(r"/(opt|etc|var/lib|usr/lib)/flux-worker\b")
    files = [*PROVISION.rglob("*.sh"), *PROVISION.rglob("*.j2"), *(ROOT / "bake").rglob("*.j2")]
    # Unchanged on the image, and says the path to people.
    files.remove(PROVISION / "rootfs" / layout.LIBRARY[1:] / "wait-for-settings.sh")
    # Runs on a launched instance.
    files = [file for file in files if file.parent.name != "launch"]
    twice = [
        f"{file.relative_to(ROOT)}:{number}: {line}"
        for file in files
        for number, line in lines(file)
        if of_the_image.search(line)
    ]
    assert twice == []


@pytest.mark.parametrize(
    "path",
    [
        f"{layout.WORKER_ENV}.j2",
        f"{layout.NOTICE}.j2",
        f"{layout.UNITS}/{layout.SERVICE}.j2",
        f"{layout.UNITS}/{layout.SERVICE_OF_SEVERAL}.j2",
        f"{layout.LIBRARY}/wait-for-settings.sh",
        f"{layout.LIBRARY}/workers.sh",
    ],
)
def test_rootfs_has_what_the_layout_names(path: str) -> None:
    assert (PROVISION / "rootfs" / path[1:]).is_file()


def test_the_seal_removes_and_keeps_what_the_layout_names() -> None:
    listed = yaml.safe_load((PROVISION / "seal.yaml").read_text(encoding="utf-8"))
    actions = {entry["path"]: entry["action"] for entry in listed["entries"]}
    assert {layout.WORKER} <= set(listed["keep"])
    assert actions[layout.BAKE] == actions[layout.INSTANCE_ENV] == "remove"
    assert actions[layout.STATE] == "empty"
    lease = [layout.LEASE, f"{layout.UNITS_IN_MEMORY}/{layout.LEASE_UNIT}.*"]
    assert [actions[path] for path in lease] == ["remove", "remove"]
    assert layout.LEASE_KEPT.startswith(f"{layout.BAKE}/")
