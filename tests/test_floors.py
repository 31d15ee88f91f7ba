"""The floors of the packages: which module may import which.

Every import counts: also inside functions, for types only (TYPE_CHECKING), and as a text, as in the command
line's table of commands. import-linter could check the order, too, but needs two more dependencies for these
sixty lines, and does not see texts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From top to bottom: a module imports only from its own floor and from those below.
BAKE = (
    "cli",
    "commands",
    "pipeline release",  # the whole bake in order; what it hands over
    "steps",  # one step, one module, one verb
    "request",  # load a profile, plan it, compare it with the agreement
    "rehearsal",  # who calls there, with which rights
    "localcloud",  # where rehearsals run instead of AWS
    "schedules",  # what bakes on a schedule: a workflow, a stack, units
    "rollout",  # a channel's AMI on the instances of an Auto Scaling group
    "lifecycle",  # what all bakes have in the account, and what expired ones left
    "fleet planning",  # pure: profile + facts of the account -> a channel's stack, a plan
    "account",  # asks AWS and the Hub
    "publish",  # launch templates, parameters, copies, channels: what makes a finished AMI known
    "agreement iam launch_request notices userdata worker_source",
    "weights",  # the model: its files, their lock, the Hub, the mirror
    "profile",
    "report",  # what reviewers read, made of a run directory
    "updates",  # what a distribution has fixed since an image was made
    "checks",  # of a machine, over SSH
    "attest reaper",  # what a snapshot holds, signed; schedules that end an instance which hangs
    "instance lease builder_lease wiring image creation resources systems interpreter",
    "aws ssh units undo run",
    "costs hydration",
    "journal",
    "aws_errors git progress tokens",
    "background columns errors interrupt layout redaction retries surroundings terminal trees waits",
)
WORKER = (
    "cli",
    "commands serve",
    "access sender worker",
    "settling steps",
    "jobs",
    "encode",
    "inference",
    "aws breaker jobspec",
    "background",
    "host",
    "settings",
    "secretsmanager",
    "backoff errors model_facts redaction",
)

Imports = Mapping[str, frozenset[str]]


@cache
def imports(folder: str) -> Imports:
    """What each module of a package imports of it, by full names."""
    root = ROOT / folder
    files = {name_of(file, root): file for file in root.rglob("*.py")}
    return {
        name: frozenset(found for found in imported(name, file, files) if found != name)
        for name, file in files.items()
    }


def name_of(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(name: str, file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names if alias.name in known)
            case ast.ImportFrom():
                start = package.rsplit(".", node.level - 1)[0] if node.level else ""
                base = ".".join(part for part in (start, node.module) if part)
                names = [f"{base}.{alias.name}" for alias in node.names]
                yield from (one if one in known else base for one in names if {one, base} & known.keys())
            case ast.Constant(value=str(text)) if "." in text and text in known:
                yield text


def part(module: str) -> str:
    """The package or module of the first level that a module belongs to."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize(("folder", "floors"), [("bake", BAKE), ("worker/flux_worker", WORKER)])
def test_every_part_of_a_package_stands_on_one_floor(folder: str, floors: tuple[str, ...]) -> None:
    package = Path(folder).name
    listed = [f"{package}.{name}" for floor in floors for name in floor.split()]
    assert len(set(listed)) == len(listed)
    there = {part(module) for module in imports(folder)} - {package}
    assert there == set(listed)


@pytest.mark.parametrize(("folder", "floors"), [("bake", BAKE), ("worker/flux_worker", WORKER)])
def test_nothing_imports_from_a_floor_above(folder: str, floors: tuple[str, ...]) -> None:
    package = Path(folder).name
    height = {f"{package}.{name}": -depth for depth, floor in enumerate(floors) for name in floor.split()}
    assert not {
        (module, one)
        for module, them in imports(folder).items()
        for one in them
        if {module, one}.isdisjoint({package}) and height[part(one)] > height[part(module)]
    }


@pytest.mark.parametrize("folder", ["bake", "worker/flux_worker"])
def test_no_module_imports_itself_by_a_detour(folder: str) -> None:
    acyclic(imports(folder))


@pytest.mark.parametrize("folder", ["bake", "worker/flux_worker"])
def test_no_packages_import_each_other(folder: str) -> None:
    """Neither the parts of the whole, nor the packages within one of them."""
    levels: dict[str, dict[str, set[str]]] = {}
    for module, them in imports(folder).items():
        for one in them:
            above, ours, theirs = fork(module, one)
            levels.setdefault(above, {}).setdefault(ours, set()).add(theirs)
    for graph in levels.values():
        acyclic(graph)


def fork(module: str, other: str) -> tuple[str, str, str]:
    """The package that both are in, and the child of it that each is in; itself where it is the package."""
    pairs = list(zip(module.split("."), other.split("."), strict=False))
    depth = next((index for index, (one, two) in enumerate(pairs) if one != two), len(pairs))
    ours, theirs = (".".join(name.split(".")[: depth + 1]) for name in (module, other))
    return ".".join(module.split(".")[:depth]), ours, theirs


def acyclic(graph: Mapping[str, object]) -> None:
    try:
        TopologicalSorter(graph).prepare()  # type: ignore[arg-type]
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_steps_never_see_the_local_cloud() -> None:
    for module, them in imports("bake").items():
        if part(module) in ("bake.steps", "bake.pipeline", "bake.release", "bake.aws"):
            assert not {one for one in them if part(one) == "bake.localcloud"}, module


def test_planning_asks_nobody() -> None:
    """It takes the account's answers as they are: neither clients nor anything that asks with them."""
    for file in (ROOT / "bake/planning").rglob("*.py"):
        found = imports("bake")[name_of(file, ROOT / "bake")]
        assert not found & {"bake.aws", "bake.aws_errors", "bake.account.asking", "bake.ssh", "bake.git"}, (
            file
        )
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                packages = {name.split(".")[0] for name in [*names, getattr(node, "module", None) or ""]}
                assert not packages & {"boto3", "botocore", "socket", "subprocess"}, file
                assert not [name for name in names if name.startswith("ask")], file


def test_nothing_imports_past_the_local_clouds_facade() -> None:
    """In the product; tests look behind the facade on purpose."""
    assert not {
        module
        for module, them in imports("bake").items()
        if part(module) != "bake.localcloud" and any(one.startswith("bake.localcloud.") for one in them)
    }


def test_the_worker_never_imports_bake() -> None:
    for file in (ROOT / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "bake"], file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("from bake.steps import launch", {"bake.steps.launch"}, id="a module"),
        pytest.param("from bake.steps.launch import tags", {"bake.steps.launch"}, id="a name"),
        pytest.param("from ..steps import launch", {"bake.steps.launch"}, id="relative"),
        pytest.param("import bake.steps.launch as x", {"bake.steps.launch"}, id="import"),
        pytest.param("def f():\n    from bake import steps", {"bake.steps"}, id="in a function"),
        pytest.param("LAZY = ('bake.steps.launch', 'launch')", {"bake.steps.launch"}, id="by name"),
        pytest.param("import json\nfrom bakery import steps", set(), id="others"),
    ],
)
def test_imports_are_found_however_they_are_written(tmp_path: Path, text: str, expected: set[str]) -> None:
    file = tmp_path / "guarded.py"
    file.write_text(text)
    known = dict.fromkeys(("bake", "bake.steps", "bake.steps.launch"), file)
    assert set(imported("bake.planning.guarded", file, known)) == expected


def test_a_circle_is_shown_with_its_modules() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"a -> b -> a|b -> a -> b"):
        acyclic({"a": {"b"}, "b": {"a"}, "c": {"a"}})
    assert fork("bake.steps.launch", "bake.ssh.login") == ("bake", "bake.steps", "bake.ssh")
    assert fork("bake.ssh", "bake.ssh.login") == ("bake.ssh", "bake.ssh", "bake.ssh.login")
