"""A handful of the suite's cells, from the forks of one bake; `make chaos` runs many more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bake import localcloud
from bake.localcloud import Settings
from bake.localcloud.network import bridge

from . import case, table
from .cells import CUTS, FAULTS, Cell, calls, chosen, steps
from .forks import Forks, forks
from .lane import Lane

NETWORKS = range(150, 158)
# One of each kind, at steps after which little is left to do.
CELLS = [
    Cell("launch", "refused", "ec2 RunInstances"),
    Cell("stop", "SIGTERM"),
    Cell("create image", "lost after success", "ec2 CreateImage"),
    Cell("remove builder", "kill -9"),
    Cell("boot check", "expired credentials", "sqs SendMessage"),
]


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    place = tmp_path_factory.mktemp("chaos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAKE_LOCAL_STATE", str(place / "cloud"))
        for number in NETWORKS:
            patch.setenv("BAKE_LOCAL_NETWORK", f"10.214.{number}.0/24")
            if not bridge.claimed(Settings.load()):
                break
        yield Lane(place)
        localcloud.down()
    shutil.rmtree(place)  # gigabytes, which pytest would keep


@pytest.fixture(scope="module")
def made(lane: Lane) -> Forks:
    return forks(lane, {cell.step for cell in CELLS})


@pytest.mark.root
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.row}-{cell.cut}".replace(" ", "-"))
def test_a_bake_that_is_cut_leaves_nothing_and_loses_nothing(cell: Cell, lane: Lane, made: Forks) -> None:
    (outcome,) = case.run_all([cell], lane, made)
    assert outcome.verdict == "ok", f"{outcome.wrong} {outcome.how} {outcome.message}"


CALLED = {"plan": ["ec2 DescribeImages"], "stop": ["ec2 StopInstances"], "clean up": ["sqs DeleteQueue"]}
ON_SPOT = {"launch": ["scheduler CreateSchedule"], "stop": ["ec2 StopInstances"]}
STEPS = ["plan", "survey", "stop", "clean up"]


def test_a_call_is_cut_in_each_way_at_the_first_step_that_makes_it() -> None:
    found = calls(CALLED, ON_SPOT)
    assert [(cell.step, cell.call) for cell in found if cell.cut == "refused"] == [
        ("plan", "ec2 DescribeImages"),
        ("stop", "ec2 StopInstances"),
        ("boot check", "sqs DeleteQueue"),
        ("launch", "scheduler CreateSchedule"),
    ]
    assert len(found) == 4 * len(FAULTS)
    assert {cell.call for cell in found if cell.market == "spot"} == {"scheduler CreateSchedule"}


@pytest.mark.parametrize("seed", ["2026-11-28", "x"])
def test_a_choice_covers_all_rows_and_columns(seed: str) -> None:
    cells = [*calls(CALLED, ON_SPOT), *steps(STEPS)]
    found = chosen(cells, 5, seed)
    assert found == chosen(cells, 5, seed)
    assert {(bool(cell.call), cell.row) for cell in found} == {(bool(cell.call), cell.row) for cell in cells}
    assert {cell.cut for cell in found} == {*FAULTS, *CUTS}
    assert not any(cell.why_not for cell in found)
    assert len(chosen(cells, 10_000, seed)) == sum(not cell.why_not for cell in cells)


def test_the_table_says_what_was_found(tmp_path: Path) -> None:
    made = Forks(steps=STEPS, calls=CALLED)
    outcomes = tmp_path / "outcomes.jsonl"
    red = case.Outcome("stop", "refused", "ec2 StopInstances", "red", wrong=["it is <left>"])
    earlier = case.Outcome("survey", "SIGINT", "", "red", wrong=["mended since"])
    later = case.Outcome("survey", "SIGINT", "")
    outcomes.write_text("".join(json.dumps(case.as_dict(one)) + "\n" for one in (red, earlier, later)))
    page = table.render(table.read(outcomes), made)
    assert "| ec2 StopInstances (stop) | **red** | not run |" in page
    assert "| survey | not run | not run | ok |" in page
    assert "- ec2 StopInstances, refused: it is &lt;left>" in page
    assert "mended since" not in page
    assert "1 ok, 1 red" in page


def test_the_page_is_current() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "run `make docs`"


def test_a_cell_that_does_not_apply_is_not_run(tmp_path: Path) -> None:
    assert case.run(Cell("publish", "SSH cut"), Lane(tmp_path), Forks()).verdict == "does not apply"
