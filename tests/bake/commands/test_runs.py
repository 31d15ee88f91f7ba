"""`bake runs`: what each run's journal says of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bake.commands.runs import runs
from bake.creation import stamp
from bake.journal import JOURNAL
from bake.run import alone

NOW = datetime.now(UTC)
PRICES = {"builder_hour": 2.0, "worker_hour": 3.0, "kept_month": 1.5}
BUILDER = {
    "event": "created",
    "kind": "instance",
    "name": "bake-1-builder",
    "id": "i-1",
    "what": "instance i-1",
}
KEY = {"event": "created", "kind": "key pair", "name": "k", "id": "k", "what": "key pair k"}


def kept(parent: Path, run: str, *entries: dict[str, Any], expires: timedelta = timedelta(hours=1)) -> Path:
    """A run directory; its journal began an hour ago."""
    folder = parent / run
    folder.mkdir(parents=True)
    began = {"event": "run", "command": "bake", "profile": "g6e-ubuntu", "rehearsal": False, "prices": PRICES}
    at = stamp(datetime.now(UTC) - timedelta(hours=1))  # NOW may be minutes ago
    lines = [{"at": at, **entry} for entry in ({**began, "expires": stamp(NOW + expires)}, *entries)]
    (folder / JOURNAL).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def listed(parent: Path, *options: str) -> list[dict[str, Any]]:
    found = CliRunner().invoke(runs, ["--json", *options], obj={"runs": parent}, catch_exceptions=False)
    rows: list[dict[str, Any]] = json.loads(found.output)
    return rows


@pytest.mark.parametrize(
    ("entries", "expires", "state"),
    [
        ([BUILDER], 1, "cut"),
        ([BUILDER], -1, "expired"),
        ([BUILDER, {"event": "renewed", "expires": stamp(NOW + timedelta(hours=2))}], -1, "cut"),
        ([BUILDER, {"event": "ended", "outcome": "failed"}], 1, "failed"),
        ([{"event": "ended", "outcome": "interrupted"}, {"event": "resumed"}], 1, "cut"),
    ],
    ids=["cut", "expired", "renewed", "failed-and-left-something", "resumed-and-cut-again"],
)
def test_each_run_has_its_state(
    tmp_path: Path, entries: list[dict[str, Any]], expires: int, state: str
) -> None:
    kept(tmp_path, "1", *entries, expires=timedelta(hours=expires))
    (row,) = listed(tmp_path)
    assert row["state"] == state


def test_a_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    with alone(kept(tmp_path, "1", BUILDER)):
        assert listed(tmp_path)[0]["state"] == "running"
    assert listed(tmp_path)[0]["state"] == "cut"


def test_a_run_shows_what_it_holds_and_what_it_cost(tmp_path: Path) -> None:
    kept(
        tmp_path,
        "1",
        KEY,
        BUILDER,
        {"event": "removed", "what": "key pair k"},
        {"event": "step", "step": "fit"},
    )
    (row,) = listed(tmp_path)
    assert (row["holds"], row["step"], row["attempts"]) == (["instance i-1"], "fit", 1)
    assert row["hours"] == pytest.approx(1, abs=0.01)
    assert row["dollars"] == pytest.approx(2, abs=0.02)


def test_runs_that_ended_well_are_listed_on_request(tmp_path: Path) -> None:
    kept(tmp_path, "1", {"event": "ended", "outcome": "done"})
    assert listed(tmp_path) == []
    assert [row["state"] for row in listed(tmp_path, "--all")] == ["done"]


def test_folders_without_a_journal_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "20250101-000000-abcdef/logs").mkdir(parents=True)
    assert listed(tmp_path, "--all") == []
    assert listed(tmp_path / "nowhere", "--all") == []


def test_the_table_names_what_to_do_with_each(tmp_path: Path) -> None:
    kept(tmp_path, "1", BUILDER)
    found = CliRunner().invoke(runs, [], obj={"runs": tmp_path})
    header, row = found.output.splitlines()
    assert header.split() == ["run", "profile", "state", "step", "expires", "cost", "holds"]
    assert row.split()[:3] == ["1", "g6e-ubuntu", "cut"]
    assert row.endswith("instance i-1")
    empty = CliRunner().invoke(runs, [], obj={"runs": tmp_path / "nowhere"})
    assert "goes on or left anything" in empty.output
