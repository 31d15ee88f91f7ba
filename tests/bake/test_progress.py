"""Progress: the same events for people, for machines and for the run directory."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from bake.progress import JsonScreen, PlainScreen, Progress, readable


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
