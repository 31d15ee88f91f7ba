"""Compile on the builder: the worker's own command fills the image's folder, and the step reads it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake import layout, units
from bake.errors import BakeError
from bake.localcloud.hub import tiny_flux
from bake.planning.plan import Plan
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.ssh import CommandResult, Login, Session
from bake.steps import compile_model as step
from tests.plans import changed
from tests.worker.conftest import REVISION

if TYPE_CHECKING:
    pass

SIZE = "256x256"


class Folder(Session):
    """A builder's disk, below a folder of the test: commands run on this machine."""

    def __init__(self, root: Path) -> None:
        self.login = Login("192.0.2.1", "ubuntu", "", "ssh-ed25519 AAAA")
        self.root = root

    def run(self, *argv: str, **_: Any) -> CommandResult:
        words = [word.replace(layout.COMPILED, f"{self.root}{layout.COMPILED}") for word in argv]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return CommandResult(tuple(words), done.returncode, done.stdout, done.stderr, 0.1)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("1", tmp_path / "run", Progress(PlainScreen(io.StringIO())))


@pytest.fixture
def session(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "builder")


def planned(plan: Plan, sizes: tuple[str, ...], lacks: str = "") -> Plan:
    """The plan with these sizes, on a builder that has the GPU, or lacks it."""
    profile = plan.profile.model_copy(
        update={"worker": plan.profile.worker.model_copy(update={"compile_sizes": sizes})}
    )
    drivers = dataclasses.replace(plan.provision.drivers, lacks=lacks, compiles=() if lacks else sizes)
    return changed(plan, profile, drivers=drivers)


def facts(run: Run) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run.directory / step.FACTS).read_text())
    return told


def kept(session: Folder, *sizes: list[int]) -> None:
    """What the worker keeps of sizes, without the code."""
    folder = Path(f"{session.root}{layout.COMPILED}/NVIDIA-L40S_bf16")
    folder.mkdir(parents=True)
    told = {"key": {"GPU": "NVIDIA L40S sm89"}, "sizes": [*sizes], "bytes": 7}
    (folder / "compiled.json").write_text(json.dumps(told))


def stand_in_unit(monkeypatch: pytest.MonkeyPatch, said: str = "") -> list[tuple[str, ...]]:
    """The outermost edge, a GPU, is faked: the unit that draws ends well. Returns the commands."""
    started: list[tuple[str, ...]] = []

    class Ended:
        def __init__(self, argv: tuple[str, ...]) -> None:
            self.result = CommandResult(argv, 0, "", said, 41.5)

        def wait(self) -> CommandResult:
            return self.result

        def save_logs(self, *_: Any) -> None:
            """It wrote none."""

    def start(_session: Session, name: str, *argv: str, **options: Any) -> Ended:
        started.append((name, *argv, str(options["environment_file"])))
        return Ended(argv)

    monkeypatch.setattr(units, "start", start)
    return started


def test_without_sizes_there_is_no_such_step(one_plan: Plan, run: Run, session: Folder) -> None:
    step.compile_model(session, planned(one_plan, ()), run)
    assert run.progress.steps == []
    assert not (run.directory / step.FACTS).exists()


def test_without_the_gpu_nothing_is_started_and_the_facts_say_why(
    one_plan: Plan, run: Run, session: Folder
) -> None:
    why = "the builder m7i.xlarge has no L40S"
    step.compile_model(session, planned(one_plan, ("1024x1024",), why), run)
    assert facts(run) == {"asked": ["1024x1024"], "compiled": [], "why_not": why}
    assert run.progress.steps == []


def test_each_size_is_drawn_once_and_told_with_what_it_is_for(
    one_plan: Plan, run: Run, session: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = stand_in_unit(monkeypatch)
    kept(session, [768, 1344, 512], [1024, 1024, 512])
    step.compile_model(session, planned(one_plan, ("1024x1024", "768x1344")), run)
    assert [name for name, *_ in started] == ["bake-compile-1024x1024", "bake-compile-768x1344"]
    assert {line[-1] for line in started} == {layout.WORKER_ENV}
    assert [(one["size"], one["seconds"], one["key"]) for one in facts(run)["compiled"]] == [
        (size, 41.5, {"GPU": "NVIDIA L40S sm89"}) for size in ("1024x1024", "768x1344")
    ]


def test_a_worker_that_drew_eagerly_fails_the_bake_with_its_reason(
    one_plan: Plan, run: Run, session: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_unit(monkeypatch, "Loaded\nthe blocks cannot be compiled, running eagerly: no ptxas")
    kept(session, [512, 512, 512])
    with pytest.raises(
        BakeError, match="compiled nothing: the blocks cannot be compiled, running eagerly: no ptxas"
    ) as caught:
        step.compile_model(session, planned(one_plan, ("1024x1024",)), run)
    assert "bake-compile" in str(caught.value.hint)


SERVED = """
import json, logging, os
from torch._dynamo.utils import counters
from flux_worker.inference.model import load
from flux_worker.jobspec.job import Job
from flux_worker.settings import ModelSettings
logging.basicConfig(level=logging.INFO)
model = load(ModelSettings.from_environment(os.environ))
model.generate(Job(id="a", prompt="a cat", width=256, height=256, steps=2, seed=7))
print(json.dumps(counters["inductor"]))
"""


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_steps_own_command_fills_the_folder_that_serve_reads(tmp_path: Path) -> None:
    """On the CPU: `draw` with the step's arguments compiles; loaded as `serve` does it is only read."""
    model = tmp_path / "hub" / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / REVISION
    tiny_flux.build(model)
    cache = tmp_path / "compiled"
    environment = {
        **os.environ,
        "FLUX_MODEL_REVISION": REVISION,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "FLUX_BACKEND": "cpu",
        "FLUX_COMPILE": "regional",
        "FLUX_COMPILE_CACHE": str(cache),
    }
    words = [
        word.replace(layout.COMPILED, str(cache)).replace(layout.BAKE, str(tmp_path))
        for word in step.arguments(SIZE)
    ]
    words[words.index(f"{layout.VENV}/bin/flux-worker")] = str(Path(sys.executable).with_name("flux-worker"))
    drawn = subprocess.run(words, env=environment, umask=0o022, capture_output=True, text=True, check=False)
    assert drawn.returncode == 0, drawn.stderr
    [folder] = cache.iterdir()
    made = step.found((folder / "compiled.json").read_text(), SIZE, 1)
    assert made
    assert made.key["precision"] == "bf16"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    served = subprocess.run(
        [sys.executable, "-c", SERVED], env=environment, capture_output=True, text=True, check=False
    )
    assert served.returncode == 0, served.stderr
    assert f"compiled blocks of {folder} for {SIZE} with 512 tokens" in served.stderr
    counted = json.loads(served.stdout.splitlines()[-1])
    assert (counted["fxgraph_cache_hit"], counted.get("fxgraph_cache_miss", 0)) == (2, 0)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
