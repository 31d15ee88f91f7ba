"""The controller alone: no torch, no worker, no moto, no root, and nothing of Linux while it is imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .conftest import ROOT, Installed

pytestmark = pytest.mark.integration

HEAVY = "torch diffusers transformers torchao accelerate moto flask werkzeug flux_worker"
EVERYTHING = """
import importlib, pathlib, sys
sys.dont_write_bytecode = True
import bake
root = pathlib.Path(bake.__file__).parent
elsewhere = ("bake._data.", "bake.localcloud.", "bake.checks.test_", "bake.checks.conftest",
             "bake.checks.probes.")
for file in sorted(root.rglob("*.py")):
    name = ".".join(("bake", *file.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
    if not name.startswith(elsewhere):
        importlib.import_module(name)
loaded = [module for name, module in sys.modules.items() if name.partition(".")[0] == "bake"]
print("\\n".join(module.__file__ for module in loaded))
"""
# What macOS lacks: modules, and names of the standard library's that may stand in functions only.
MODULES = {"spwd", "ossaudiodev", "prctl", "pyudev", "systemd"}
NAMES = {
    "epoll", "eventfd", "fdatasync", "memfd_create", "pidfd_open", "posix_fadvise", "posix_fallocate",
    "sched_getaffinity", "setns", "unshare", "AF_NETLINK", "AF_VSOCK", "CLONE_NEWNS", "EPOLLIN", "O_DIRECT",
    "O_PATH", "O_TMPFILE", "SIGPWR", "SIGRTMIN", "SO_PEERCRED", "F_OFD_SETLK", "F_SETPIPE_SZ",
}  # fmt: skip


def test_the_whole_controller_is_imported_without_torch_worker_moto_and_linux(
    installed: Installed, tmp_path: Path
) -> None:
    done = installed.run("python", "-c", EVERYTHING, cwd=tmp_path, blocked=HEAVY)
    assert done.returncode == 0, done.stderr
    loaded = [Path(line) for line in done.stdout.splitlines()]
    assert len(loaded) > 100
    for file in loaded:  # of the local cloud, what its facade brings
        check_runs_elsewhere(file)


def at_import(tree: ast.AST) -> list[ast.AST]:
    """The nodes that are run while the module is imported: bodies of functions are not."""
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += at_import(node)
    return found


def check_runs_elsewhere(file: Path) -> None:
    """Nothing that only Linux has is needed while the module is imported."""
    for node in at_import(ast.parse(file.read_text(encoding="utf-8"))):
        where = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & MODULES, where
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in MODULES, where
            assert not {alias.name for alias in node.names} & NAMES, where
        if isinstance(node, ast.Attribute):
            assert node.attr not in NAMES, where


def test_the_names_that_macos_lacks_are_looked_for_where_they_would_be() -> None:
    tree = ast.parse("import os\nFLAGS = os.O_DIRECT\ndef f():\n    return os.O_PATH\n")
    assert [node.attr for node in at_import(tree) if isinstance(node, ast.Attribute)] == ["O_DIRECT"]


@pytest.mark.parametrize(
    "arguments", [("--help",), ("plan", "--help"), ("profiles", "--schema")], ids=" ".join
)
def test_the_command_line_needs_neither(
    installed: Installed, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = installed.run("bake", *arguments, cwd=tmp_path, blocked=HEAVY)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_on_aws_needs_neither_and_no_root(installed: Installed, tmp_path: Path) -> None:
    """As far as AWS: whom it asks does not answer here, and it says so without a traceback."""
    assert installed.run("bake", "init", "--json", cwd=tmp_path).returncode == 0
    made_up = {
        "SPOT_AWS_REGION": "eu-north-1",
        "AWS_REGION": "eu-west-1",
        "BASE_AMI_ID": "ami-0123456789abcdef0",
        "BAKE_SUBNET_ID": "subnet-0123456789abcdef0",
        "BAKE_SECURITY_GROUP_ID": "sg-0123456789abcdef0",
        "BAKE_INSTANCE_PROFILE": "flux-worker",
        "HF_TOKEN": "hf_" + "a" * 34,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_MAX_ATTEMPTS": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    done = installed.run("bake", "plan", "--profile", "g6e-ubuntu", cwd=tmp_path, env=made_up, blocked=HEAVY)
    assert done.returncode == 5, done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_from_git_is_built_without_pip(installed: Installed, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bake.steps.provision import build_wheel; "
        "print(build_wheel(Path(sys.argv[1]), Path(sys.argv[2])).name)"
    )
    done = installed.run(
        "python",
        "-c",
        code,
        str(ROOT / "worker"),
        str(tmp_path / "wheels"),
        cwd=tmp_path,
        blocked="pip torch",
    )
    assert done.stdout.startswith("flux_worker-"), done.stderr


def test_the_lock_of_the_controller_has_neither() -> None:
    lock = (ROOT / "requirements" / "bake.txt").read_text(encoding="utf-8")
    names = {line.partition("==")[0] for line in lock.splitlines() if "==" in line and line[0] != " "}
    assert {"boto3", "paramiko", "pytest-testinfra"} <= names
    assert not names & {"moto", "torch", "mypy", "uv", "pip", "ruff"}
    whole = (ROOT / "requirements" / "controller.txt").read_text(encoding="utf-8")
    assert set(lock.splitlines()[2:]) <= set(whole.splitlines())
