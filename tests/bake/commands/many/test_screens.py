"""One screen for several bakes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from bake.commands.many.screens import JsonLines, PlainLines
from bake.commands.many.terminal import Table

EVENTS: list[dict[str, Any]] = [
    {"event": "left_out", "profile": "inf2", "text": "left out: int8"},
    {"event": "started", "profile": "a", "pid": 7},
    {"event": "started", "profile": "longer", "pid": 8},
    {"event": "plan", "profile": "a", "text": "a page"},
    {"event": "run", "profile": "a", "id": "r1", "directory": "runs/r1"},
    {"event": "step_started", "profile": "a", "step": "launch"},
    {"event": "waiting", "profile": "a", "what": "x", "since": "s", "text": "waiting for [x]"},
    {"event": "note", "profile": "longer", "text": "one\ntwo"},
    {"event": "transfer", "profile": "longer", "what": "weights", "done": 5, "total": 10},
    {"event": "said", "profile": "longer", "text": "error: no [red]capacity"},
    {"event": "ended", "profile": "longer", "exit_code": 5, "seconds": 61.0},
    {"event": "ended", "profile": "a", "exit_code": 0, "seconds": 60.0},
    {"event": "summary", "text": "\nthe table", "exit_code": 5},
]


def show(screen: Any) -> None:
    for at, event in enumerate(EVENTS):
        screen.show({"at": float(at), **event})
    screen.close()


def test_lines_have_their_profile_each() -> None:
    stream = io.StringIO()
    show(PlainLines(["a", "longer"], stream))
    lines = stream.getvalue().splitlines()
    assert "a      | Run r1, kept in runs/r1" in lines
    assert "longer |     one" in lines and "longer | two" in lines
    assert "longer | error: no [red]capacity" in lines
    assert "longer | ended with 5 after 61 s" in lines
    assert "a      | ==> launch" in lines
    assert not [line for line in lines if "a page" in line]
    assert lines[-1] == "the table"


def test_json_is_of_the_bakes_alone_and_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show(JsonLines())
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == [e["event"] for e in EVENTS if e["event"] != "said"]
    assert err == "longer: error: no [red]capacity\n"


def console(stream: io.StringIO, width: int) -> Console:
    return Console(file=stream, force_terminal=True, width=width, highlight=False, color_system=None)


@pytest.mark.parametrize("width", [20, 100])
def test_a_terminal_has_a_row_for_each(width: int) -> None:
    stream, rows = io.StringIO(), io.StringIO()
    table = Table(["a", "longer"], console(stream, width))
    for event in EVENTS[:-3]:
        table.show({"at": 0.0, **event})
    console(rows, width).print(table._render())
    table.close()
    shown = rows.getvalue()
    assert [line[:1] for line in shown.splitlines() if line[:1].strip()] == ["a", "l"]
    if width == 100:
        assert "waiting for [x]" in shown and "weights: 5 B of 10 B" in shown
        assert "longer: error: no [red]capacity" in stream.getvalue()


def test_a_terminal_shows_the_table_last() -> None:
    stream = io.StringIO()
    show(Table(["a", "longer"], console(stream, 100)))
    text = stream.getvalue()
    assert text.index("ended with 5 after 61 s") < text.index("the table")
    assert "left out: int8" in text and "a page" not in text
