"""Progress writes the same events for people, for programs and into the run directory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bake.progress import JsonScreen, PlainScreen, Progress, readable
from bake.run import Run


def walk(progress: Progress) -> None:
    with progress.step("launch"):
        progress.tally.api_calls += 3
        progress.note("i-1 is starting")
        for done in range(0, 101, 5):
            progress.transfer("weights", done * 10**9, 100 * 10**9)


def test_plain_lines_have_no_escapes_and_few_transfer_lines() -> None:
    stream = io.StringIO()
    walk(Progress(PlainScreen(stream)))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "==> launch"
    assert lines[-1].startswith("    launch done in")
    assert "\x1b" not in stream.getvalue()
    assert len([line for line in lines if "weights" in line]) == 11


def test_json_events_are_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    walk(Progress(JsonScreen()))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "step_started"
    assert events[-1]["api_calls"] == 3


def test_the_run_directory_gets_every_event(tmp_path: Path) -> None:
    progress = Progress(PlainScreen(io.StringIO()))
    progress.record_to(tmp_path / "events.jsonl")
    walk(progress)
    progress.close()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("transfer") == 21


def test_a_failed_step_is_recorded_as_failed() -> None:
    stream = io.StringIO()
    progress = Progress(PlainScreen(stream))
    with pytest.raises(RuntimeError), progress.step("seal"):
        raise RuntimeError
    assert "seal failed" in stream.getvalue()
    assert progress.steps[0].name == "seal"


def test_the_terminal_shows_steps_and_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    from bake.terminal import RichScreen

    screen = RichScreen()
    progress = Progress(screen)
    with screen._console.capture() as captured:
        walk(progress)
        progress.emit("plan", text="Plan [abc]")
        progress.close()
    assert "launch" in captured.get()
    assert "Plan [abc]" in captured.get()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (33_700_000_000, "33.7 GB"), (2_424_235, "2.4 MB")]
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert readable(size) == text


class Failing:
    """A screen whose terminal has gone."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    def show(self, event: dict[str, Any]) -> None:
        self.asked += 1
        raise self.error

    def close(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        ValueError("I/O operation on closed file"),
        RuntimeError("no terminal"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_screen_that_fails_is_dropped_once_and_the_file_goes_on(error: Exception, tmp_path: Path) -> None:
    screen = Failing(error)
    progress = Progress(screen)
    progress.record_to(tmp_path / "events.jsonl")
    walk(progress)
    progress.close()
    assert screen.asked == 1
    assert '"step_ended"' in (tmp_path / "events.jsonl").read_text()


def test_a_full_disk_is_reported_once_and_the_screen_goes_on() -> None:
    stream = io.StringIO()
    progress = Progress(PlainScreen(stream))
    progress.record_to(Path("/dev/full"))
    walk(progress)
    progress.close()
    assert stream.getvalue().count("no more events are written to /dev/full: No space left on device") == 1
    assert "launch done in" in stream.getvalue()


READER = """
import sys
from bake import interrupt
from bake.progress import JsonScreen, Progress
from bake.undo import Undo
interrupt.install()
progress = Progress(JsonScreen())
try:
    with Undo(progress.status) as undo:
        undo.add("thing", lambda: print("removed", file=sys.stderr), by_hand="rm")
        for number in range(10**9):
            progress.note(str(number))
except KeyboardInterrupt:
    progress.close()
    print("interrupted", file=sys.stderr)
"""


def test_where_the_reader_of_stdout_has_gone_everything_is_removed_and_the_bake_ends() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", READER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=60)
    assert errors.startswith("removed\ninterrupted\n")


def test_an_unwritable_file_of_the_run_is_reported_and_nothing_else(tmp_path: Path) -> None:
    stream = io.StringIO()
    (tmp_path / "logs").write_text("a file where the folder should be")
    run = Run("1", tmp_path, Progress(PlainScreen(stream)))
    run.keep("logs/verify.log", "text")
    assert "logs/verify.log could not be written: File exists" in stream.getvalue()
    assert run.keep("first-image.png", b"picture").read_bytes() == b"picture"
