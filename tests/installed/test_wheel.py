"""What the wheel of `ami-bake` carries, and that it is the checkout's."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from bake import resources
from bake.trees import hash_file, hash_tree

from .conftest import ROOT, Installed, build_wheel, copy_checkout

pytestmark = pytest.mark.integration

ABOUT = """
import json
from bake import resources
from bake.trees import hash_file, hash_tree
wheel = resources.worker_wheel()
print(json.dumps({
    "installed": resources.INSTALLED,
    "package": str(resources.PACKAGE),
    "provision": hash_tree(resources.PROVISION),
    "checks": hash_tree(resources.CHECKS),
    "worker.txt": hash_file(resources.LOCKS / "worker.txt"),
    "lock": hash_file(resources.LOCK),
    "wheel": wheel.name,
}))
"""


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def tracked(*folders: str) -> set[str]:
    listed = subprocess.check_output(["git", "ls-files", *folders], cwd=ROOT, text=True)
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


def test_all_files_of_the_package_and_of_the_folders_beside_it_are_in_the_wheel(wheel: Path) -> None:
    beside = {f"bake/_data/{name}" for name in tracked("provision", "profiles", ".env.example")}
    assert beside | tracked("bake") <= names(wheel)
    more = {"bake/_data/requirements/bake.txt", "bake/_data/requirements/controller.txt"}
    assert more <= names(wheel)
    assert not [name for name in names(wheel) if "__pycache__" in name or name.startswith("tests/")]


def test_the_plans_inputs_are_the_same_in_a_checkout_and_an_installed_wheel(
    installed: Installed, tmp_path: Path
) -> None:
    """Names, contents and modes: what was agreed in a checkout holds for the wheel of the same commit."""
    done = installed.run("python", "-c", ABOUT, cwd=tmp_path)
    about = json.loads(done.stdout)
    assert about.pop("installed") is True
    assert Path(about.pop("package")).is_relative_to(installed.python.parents[1])
    assert about.pop("wheel").startswith("flux_worker-")
    assert about == {
        "provision": hash_tree(resources.PROVISION),
        "checks": hash_tree(resources.CHECKS),
        "worker.txt": hash_file(resources.LOCKS / "worker.txt"),
        "lock": hash_file(ROOT / "requirements" / "bake.txt"),
    }
    assert not resources.INSTALLED


def test_the_workers_wheel_holds_the_workers_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".whl"))
        with outer.open(inner) as stream, zipfile.ZipFile(stream) as worker:
            for file in tracked("worker/flux_worker"):
                assert worker.read(file.removeprefix("worker/")) == (ROOT / file).read_bytes()


def test_a_wheel_has_the_same_bytes_each_time_and_nothing_that_somebody_agreed_to(
    wheel: Path, tmp_path: Path
) -> None:
    source = copy_checkout(tmp_path / "source")
    lock = source / "profiles" / "g5-ubuntu.lock.yaml"
    lock.write_text(yaml.safe_dump({**yaml.safe_load(lock.read_text()), "agreed": {"base.ami": "ami-0"}}))
    (source / "build" / "lib" / "bake").mkdir(parents=True)
    (source / "build" / "lib" / "bake" / "removed_long_ago.py").write_text("")
    again = build_wheel(source, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert set(first.namelist()) - set(second.namelist()) == {"bake/_data/profiles/g5-ubuntu.lock.yaml"}
        assert set(second.namelist()) <= set(first.namelist())
        for name in set(second.namelist()) - {"ami_bake-0.1.0.dist-info/RECORD"}:
            assert first.read(name) == second.read(name), name


def test_a_wheel_built_from_the_source_archive_carries_the_same(wheel: Path, tmp_path: Path) -> None:
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    source = copy_checkout(tmp_path / "source")
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("ami_bake-*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    again = build_wheel(next((tmp_path / "unpacked").iterdir()), tmp_path / "dist")
    assert names(again) == names(wheel)
