"""An installed bake in an empty folder, on the local cloud: nothing of a checkout is near."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bake import resources
from bake.localcloud import LocalCloud
from bake.trees import hash_file, hash_files

from .conftest import Installed

pytestmark = pytest.mark.root


@pytest.fixture
def folder(installed: Installed, tmp_path: Path) -> Path:
    """An empty folder, and `bake init` in it."""
    done = installed.run("bake", "init", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_an_installed_bake_plans_with_the_workers_wheel_that_it_carries(
    cloud: LocalCloud, installed: Installed, folder: Path
) -> None:
    assert "g6e-ubuntu" in installed.run("bake", "profiles", cwd=folder).stdout
    command = ("bake", "plan", "--profile", "g6e-ubuntu", "--rehearse", "--json")
    done = installed.run(*command, cwd=folder)
    assert done.returncode in (0, 3), done.stderr  # 3: nobody has agreed to it yet
    plan = json.loads(done.stdout)
    plan = plan.get("plan", plan)
    carried = next(installed.python.parents[1].glob("lib/*/site-packages/bake/_data/worker/*.whl"))
    assert plan["worker"]["wheel"] == carried.name
    assert plan["worker"]["version"] == f"sha256:{hash_file(carried)[:16]}"
    assert plan["inputs"]["worker"] == hash_file(carried)
    provision = hash_files(resources.PROVISION)
    assert plan["identity"]["provision"].items() <= provision.items()
    assert {name.split("/")[0] for name in provision.keys() - plan["identity"]["provision"].keys()} == {
        "launch",
        "locks",
    }


def test_without_the_extra_a_rehearsal_says_what_to_install(installed: Installed, folder: Path) -> None:
    command = ("bake", "--profile", "g6e-ubuntu", "--rehearse")
    done = installed.run(*command, cwd=folder, blocked="moto werkzeug flask torch")
    assert done.returncode == 2
    assert "the local cloud needs Python packages that are not installed: moto, torch" in done.stderr
    assert "[local]" in done.stderr


@pytest.mark.long
def test_an_installed_bake_rehearses_in_an_empty_folder(
    cloud: LocalCloud, installed: Installed, folder: Path
) -> None:
    done = installed.run("bake", "--profile", "g6e-ubuntu", "--rehearse", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = next((folder / ".bake" / "runs").iterdir())
    report = json.loads((run / "report.json").read_text())
    assert report["verdict"]["state"] == "good"
    assert done.stdout.splitlines()[-1].startswith('{"event": "reported"')
    assert (run / "first-image.png").is_file()
