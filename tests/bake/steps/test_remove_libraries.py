"""Remove libraries: only where that is agreed, a start on the GPU was recorded, and it still draws."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bake import layout, units
from bake.planning.plan import Plan
from bake.progress import PlainScreen, Progress
from bake.resources import PROVISION
from bake.run import Run
from bake.ssh import CommandResult, Login, Session
from bake.steps import record_trace
from bake.steps import remove_libraries as step
from tests.plans import changed

LIBRARY = "nvidia/cu13/lib/libcusolverMg.so.12"


class Builder(Session):
    """A builder's disk, below a folder of the test: the program of provision/ runs on this machine."""

    def __init__(self, root: Path) -> None:
        self.login = Login("192.0.2.1", "ubuntu", "", "ssh-ed25519 AAAA")
        self.root = root

    def run(self, *argv: str, stdin: bytes | None = None, **_: Any) -> CommandResult:
        words = [word.replace("/opt/", f"{self.root}/opt/") for word in argv]
        words = [sys.executable if word.endswith("/bin/python") else word for word in words]
        words = [
            str(PROVISION / Path(word).name) if word.endswith("libraries.py") else word for word in words
        ]
        done = subprocess.run(words, input=stdin, capture_output=True, check=True)
        return CommandResult(tuple(words), 0, done.stdout.decode(), "", 0.1)

    @property
    def library(self) -> Path:
        return Path(f"{self.root}{layout.VENV}/lib/python3.11/site-packages/{LIBRARY}")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """One real library, which no start opens."""
    found = Builder(tmp_path / "builder")
    source = next(Path(sys.modules["yaml"].__file__ or "").parent.glob("_yaml*.so"))
    for name in (LIBRARY, "torch/_C.so"):
        file = found.library.parents[3] / name
        file.parent.mkdir(parents=True)
        file.write_bytes(source.read_bytes())
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("1", tmp_path / "run", Progress(PlainScreen(io.StringIO())))


def planned(plan: Plan, *, remove: bool = True, lacks: str = "") -> Plan:
    worker = plan.profile.worker.model_copy(update={"remove_unused_libraries": remove})
    drivers = dataclasses.replace(plan.provision.drivers, lacks=lacks)
    return changed(plan, plan.profile.model_copy(update={"worker": worker}), drivers=drivers)


def traced(run: Run, builder: Builder, recorded: str = "start on cuda") -> None:
    opened = [str(builder.library.parents[3] / "torch/_C.so")]
    run.keep(record_trace.FACTS, json.dumps({"recorded": recorded, "opened_libraries": opened}))


def facts(run: Run) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run.directory / step.FACTS).read_text())
    return told


def draws(monkeypatch: pytest.MonkeyPatch, builder: Builder, code: int) -> list[bool]:
    """The outermost edge, drawing on a GPU, is faked. Returns whether the library was there meanwhile."""
    there: list[bool] = []

    class Ended:
        def wait(self) -> CommandResult:
            there.append(builder.library.exists())
            return CommandResult(("draw",), code, "", "Loaded\nOSError: libcusolverMg.so.12", 9.0)

        def save_logs(self, *_: Any) -> None:
            """It wrote none."""

    monkeypatch.setattr(units, "start", lambda *_, **__: Ended())
    return there


def test_agreed_libraries_go_once_the_worker_drew_without_them(
    one_plan: Plan, run: Run, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(run, builder)
    there = draws(monkeypatch, builder, 0)
    size = builder.library.stat().st_size
    found = step.remove_libraries(builder, planned(one_plan), run)
    assert found == step.Unused(1, size, removed=True, why_not="")
    assert there == [False]
    assert not builder.library.exists()
    assert not Path(f"{builder.root}{step.ASIDE}").exists()
    assert facts(run)["removed"] is True


def test_what_the_worker_cannot_draw_without_is_put_back(
    one_plan: Plan, run: Run, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced(run, builder)
    there = draws(monkeypatch, builder, 1)
    found = step.remove_libraries(builder, planned(one_plan), run)
    assert found
    assert found.why_not == "the worker does not draw without them: OSError: libcusolverMg.so.12"
    assert there == [False]
    assert builder.library.exists()


@pytest.mark.parametrize(
    ("plan", "recorded", "why"),
    [
        ({"remove": False}, "start on cuda", "worker.remove_unused_libraries is not set"),
        (
            {"lacks": "the builder m7i.xlarge has no L40S"},
            "start on cpu",
            "the builder m7i.xlarge has no L40S",
        ),
        ({}, "static", "no start was recorded on the GPU: static"),
    ],
)
def test_everything_else_only_lists_them(
    one_plan: Plan, run: Run, builder: Builder, plan: dict[str, Any], recorded: str, why: str
) -> None:
    traced(run, builder, recorded)
    found = step.remove_libraries(builder, planned(one_plan, **plan), run)
    assert found
    assert (found.count, found.removed, found.why_not) == (1, False, why)
    assert builder.library.exists()
    [row] = [row for row in facts(run)["libraries"] if row["path"] == LIBRARY]
    assert row["bytes"] == builder.library.stat().st_size


def test_a_list_that_cannot_be_made_costs_the_report_a_section_and_not_the_bake(
    one_plan: Plan, run: Run, builder: Builder
) -> None:
    run.keep(record_trace.FACTS, "[" * 10)
    builder.run = lambda *_, **__: CommandResult((), 0, "no JSON", "", 0.1)  # type: ignore[method-assign]
    assert step.remove_libraries(builder, planned(one_plan), run) is None
    assert not (run.directory / step.FACTS).exists()
