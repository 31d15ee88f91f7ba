"""The journal of a run, and what a resumed run takes over."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from bake import redaction
from bake.errors import UsageError
from bake.journal import JOURNAL, MEMORY, Journal, Memory, Record
from bake.progress import Nothing, Progress
from bake.run import Run, alone, is_running
from bake.undo import Undo


@dataclass(frozen=True)
class Found:
    files: Mapping[str, int]
    names: tuple[str, ...]


def run_in(folder: Path) -> Run:
    return Run("1", folder, Progress(Nothing()), journal=Journal(folder), memory=Memory(folder))


def test_a_journal_that_cannot_be_begun_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).symlink_to("/dev/full")
    with pytest.raises(UsageError, match=r"journal.jsonl could not be written: No space left on device"):
        Journal(tmp_path).begin("run")


def test_a_journal_that_many_threads_lose_at_once_is_told_once(tmp_path: Path) -> None:
    """Things are removed side by side, each with an entry: none may fail because the disk is full."""
    for number in range(20):
        said: list[str] = []
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / JOURNAL).symlink_to("/dev/full")
        journal, together = Journal(folder, said.append), threading.Barrier(8)

        def write(journal: Journal = journal, together: threading.Barrier = together) -> None:
            together.wait()
            journal.write("gone", what="a queue")

        with ThreadPoolExecutor(8) as threads:
            for one in [threads.submit(write) for _ in range(8)]:
                one.result()
        assert len(said) == 1


def test_a_journal_that_is_lost_later_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    journal = Journal(tmp_path, said.append)
    journal.begin("run", profile="x")
    (tmp_path / JOURNAL).unlink()
    (tmp_path / JOURNAL).symlink_to("/dev/full")
    journal.write("created")
    journal.write("created")
    assert len(said) == 1
    assert "the tags in AWS are kept" in said[0]


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin("run", profile="x")
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"at": "2026-01-01T00:00:00Z", "event": "crea')
    record = Record.read(tmp_path)
    assert record is not None
    assert [entry["event"] for entry in record.entries] == ["run"]
    Journal(tmp_path).begin("resumed")
    again = Record.read(tmp_path)
    assert again is not None
    assert [entry["event"] for entry in again.entries] == ["run", "resumed"]


def test_no_secret_gets_into_the_journal(tmp_path: Path) -> None:
    redaction.register("hf_journalsecret123")
    Journal(tmp_path).begin("run", text="the token is hf_journalsecret123")
    assert "hf_journalsecret123" not in (tmp_path / JOURNAL).read_text()


def test_a_directory_without_a_journal_is_no_run(tmp_path: Path) -> None:
    assert Record.read(tmp_path) is None
    (tmp_path / JOURNAL).write_text("nonsense\n")
    assert Record.read(tmp_path) is None


def test_what_was_created_is_held_until_it_is_removed_or_kept(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    run.journal.begin("run", profile="x")
    with Undo(record=run.journal.write) as undo:
        for name in ("a", "b", "c"):
            removal = undo.add(f"queue {name}", lambda: None, by_hand="aws")
            undo.record("created", kind="queue", name=name, id=name, what=removal.what)
        undo.forget(removal)
        record = Record.read(tmp_path)
        assert record is not None and record.held() == ["queue a", "queue b"]
    record = Record.read(tmp_path)
    assert record is not None and record.held() == []


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    found = Found({"a": 1}, ("x", "y"))
    assert run_in(tmp_path).once("look", Found, lambda: found) == found
    later = Run("1", tmp_path, Progress(Nothing()), memory=Memory.read(tmp_path))
    assert later.once("look", Found, lambda: pytest.fail("done again")) == found
    assert (tmp_path / MEMORY).stat().st_mode & 0o777 == 0o600


def test_a_step_without_a_result_is_not_done_again(tmp_path: Path) -> None:
    run_in(tmp_path).once("quantize", Found | None, lambda: None)
    later = Run("1", tmp_path, Progress(Nothing()), memory=Memory.read(tmp_path))
    assert later.once("quantize", Found | None, lambda: pytest.fail("done again")) is None


def test_a_failed_step_is_done_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_in(tmp_path).once("look", int, lambda: 1 // 0)
    assert not Memory.read(tmp_path).values


def test_what_a_run_remembers_goes_when_it_ends(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.put("launch", {"key": "secret"})
    memory.forget()
    assert not (tmp_path / MEMORY).exists()
    memory.forget()


def test_one_process_at_a_time_holds_a_run(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with alone(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(UsageError, match="still goes on in another process"), alone(tmp_path):
            pytest.fail("held twice")
    assert not is_running(tmp_path)


@pytest.mark.parametrize(
    ("events", "attempt", "ended"),
    [
        (["run"], 1, None),
        (["run", "ended"], 1, "done"),
        (["run", "resumed"], 2, None),
        (["run", "resumed", "resumed", "ended"], 3, "done"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_a_record_knows_its_attempts_and_its_end(
    tmp_path: Path, events: list[str], attempt: int, ended: str | None
) -> None:
    lines = [json.dumps({"at": "", "event": event, "outcome": "done"}) for event in events]
    (tmp_path / JOURNAL).write_text("\n".join(lines))
    record = Record.read(tmp_path)
    assert record is not None
    assert (record.attempt, record.ended) == (attempt, ended)
