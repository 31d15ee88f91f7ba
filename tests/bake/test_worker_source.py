"""The worker's code from Git is pinned, recorded in the plan, tags and report, and compared with the lock."""

from __future__ import annotations

import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import resources, worker_source
from bake.errors import BakeError, UsageError
from bake.planning.plan import Plan
from bake.planning.render import as_dict, as_text
from bake.progress import PlainScreen, Progress
from bake.resources import WORKER
from bake.run import Run
from bake.steps.launch import tags
from bake.steps.provision import build_wheel
from bake.trees import hash_file, hash_tree
from bake.worker_source import WorkerSource

from .sources import Repository, repository

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


@pytest.fixture
def code(tmp_path: Path) -> Repository:
    return repository(tmp_path / "flux")


def planned(plan_cloud: PlanCloud, code: Repository, commit: str) -> Plan:
    return plan_cloud.plan(worker={"source": code.url, "commit": commit})


def tagged(plan: Plan, directory: Path) -> dict[str, Any]:
    run = Run("20260101-000000-abcdef", directory, Progress(PlainScreen()))
    run.expires = lambda: datetime.now(UTC)
    return {tag["Key"]: tag["Value"] for tag in tags(plan, run, "name")}


def test_the_same_code_has_the_same_hash_wherever_it_comes_from(
    plan_cloud: PlanCloud, code: Repository
) -> None:
    plan = planned(plan_cloud, code, code.commit())
    assert plan.inputs["worker"] == hash_tree(WORKER) == plan_cloud.plan().inputs["worker"]


def test_the_files_of_a_commit_are_part_of_the_plans_id_and_the_commit_of_tags_and_report(
    plan_cloud: PlanCloud, code: Repository, tmp_path: Path
) -> None:
    commits = [code.commit(), code.commit()]
    plans = [planned(plan_cloud, code, commit) for commit in commits]
    assert {plan.id for plan in plans} == {plan_cloud.plan().id}
    (code.directory / "worker/flux_worker/more.py").write_text("MORE = True\n")
    assert planned(plan_cloud, code, code.commit()).id != plans[0].id
    assert [tagged(plan, tmp_path)["bake:worker"] for plan in plans] == commits
    assert re.search(rf"code +{re.escape(code.url)} at {commits[0][:12]}", as_text(plans[0]))
    assert as_dict(plans[0])["worker"]["version"] == commits[0]


def test_the_pinned_code_is_built_and_not_the_newest(code: Repository, tmp_path: Path) -> None:
    marker = code.directory / "worker/flux_worker/marker.py"
    marker.write_text("PINNED = True\n")
    pinned = code.commit()
    marker.write_text("PINNED = False\n")
    code.commit()
    with worker_source.unpacked(WorkerSource(code.url, pinned, "")) as project:
        wheel = build_wheel(project, tmp_path / "wheels")
    assert not project.exists()
    with zipfile.ZipFile(wheel) as content:
        assert content.read("flux_worker/marker.py") == b"PINNED = True\n"


def test_a_repository_of_the_worker_alone_will_do(plan_cloud: PlanCloud, tmp_path: Path) -> None:
    whole = repository(tmp_path / "flux")
    alone = Repository(whole.directory / "worker")
    alone.git("init", "--quiet")
    plan = planned(plan_cloud, alone, alone.commit())
    assert plan.inputs["worker"] == hash_tree(WORKER)


def test_a_checkout_is_known_by_its_commit_or_by_its_hash(code: Repository) -> None:
    commit = code.commit()
    assert worker_source.git.head(code.directory / "worker") == (commit, False)
    (code.directory / "worker/flux_worker/new.py").write_text("")
    assert worker_source.git.head(code.directory / "worker") == (commit, True)
    assert WorkerSource(None, commit, "ab" * 32, changed=True).version == f"{commit} with changes"
    assert WorkerSource(None, None, "ab" * 32).version == "sha256:abababababababab"


def test_an_installed_bake_takes_the_wheel_that_it_carries(
    plan_cloud: PlanCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / "flux_worker-0.1.0-py3-none-any.whl"
    carried.write_bytes(b"a wheel")
    monkeypatch.setattr(resources, "worker_wheel", lambda: carried)
    plan = plan_cloud.plan()
    assert plan.inputs["worker"] == hash_file(carried)
    assert as_dict(plan)["worker"]["wheel"] == carried.name
    assert re.search(rf"code +{re.escape(carried.name)} at sha256:{hash_file(carried)[:16]}", as_text(plan))
    with worker_source.unpacked(WorkerSource(None, None, "", wheel=carried.name)) as project:
        assert build_wheel(project, tmp_path / "wheels") == carried


def test_code_that_needs_what_the_lock_does_not_hold_is_refused(
    plan_cloud: PlanCloud, code: Repository
) -> None:
    project = code.directory / "worker/pyproject.toml"
    text = project.read_text()
    project.write_text(
        text.replace("dependencies = [", 'dependencies = [\n  "left-pad>=1",\n  "boto3>=99",', 1)
    )
    with pytest.raises(UsageError) as caught:
        planned(plan_cloud, code, code.commit())
    assert "worker.commit: its worker needs left-pad>=1, the lock has none" in caught.value.message
    assert "its worker needs boto3>=99, the lock has 1." in caught.value.message


def test_what_git_cannot_give_is_a_problem_among_others(plan_cloud: PlanCloud, code: Repository) -> None:
    code.commit()
    with pytest.raises(UsageError) as caught:
        plan_cloud.plan(worker={"source": code.url, "commit": "0" * 40}, root_volume={"size_gib": 1})
    assert f"worker.source: {code.url} has no commit 0000" in caught.value.message
    assert "root_volume.size_gib" in caught.value.message


def test_a_repository_without_the_worker_is_reported(plan_cloud: PlanCloud, code: Repository) -> None:
    (code.directory / "worker/pyproject.toml").unlink()
    with pytest.raises(UsageError, match="holds no Python project flux-worker"):
        planned(plan_cloud, code, code.commit())


def test_a_url_that_names_a_command_runs_nothing(tmp_path: Path) -> None:
    """git's `ext::` runs what the URL says; no profile can hold it, and git is told not to."""
    ran = tmp_path / "ran"
    source = WorkerSource(f"ext::touch {ran}", "0" * 40, "")
    with pytest.raises(BakeError), worker_source.unpacked(source):
        pass
    assert not ran.exists()


def test_planning_leaves_no_copy(
    plan_cloud: PlanCloud, code: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = code.directory.parent / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    planned(plan_cloud, code, code.commit())
    assert list(place.iterdir()) == []
