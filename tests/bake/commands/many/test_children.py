"""Processes that bake, here small programs that tell the same events: each with its signals and its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bake import interrupt
from bake.commands.many.children import Child, Children
from bake.commands.many.summary import most_serious, summarize
from bake.progress import Progress
from tests.screens import Seen

pytestmark = pytest.mark.integration
# Tells its events, and waits where it is asked to, until a signal; then it removes what it has created.
PROGRAM = """
import json, os, signal, sys, time
def tell(kind, **facts): print(json.dumps({"event": kind, "at": 0.5, **facts}), flush=True)
def end(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell("note", text=f"removing after {signal.Signals(number).name}")
    time.sleep(0.5)
    tell("note", text="removed")
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
code, waits = int(sys.argv[1]), sys.argv[2] == "waits"
tell("run", id="r1", directory="runs/r1")
print("no event", flush=True)
print("error: told at the end", file=sys.stderr, flush=True)
if sys.argv[2] == "output":
    with open(os.environ["GITHUB_OUTPUT"], "a") as file: file.write(f"digest=sha256:{code}\\n")
if sys.argv[2] == "stdin": tell("note", text=f"stdin has {sys.stdin.read()!r}")
if sys.argv[2] == "secret": print("a token: hf_" + 24 * "x", file=sys.stderr, flush=True)
if waits: time.sleep(600)
if code == 0: tell("released", image="ami-1", directory="runs/r1", text="a long text")
tell("reported", verdict="good" if code == 0 else "bad", report="runs/r1/report.html", text="told")
if code < 0: os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Acted(Child):
    """A bake that PROGRAM acts; its words are the exit code, and what it does before."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", PROGRAM, *self.words]


class Watched(Seen):
    """Keeps events, and does something once a certain number of a kind has been seen."""

    def __init__(self, kind: str = "", number: int = 0, act: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._kind, self._left, self._act = kind, number, act

    def show(self, event: dict[str, Any]) -> None:
        super().show(event)
        if event["event"] == self._kind:
            self._left -= 1
            if self._left == 0:
                threading.Thread(target=self._act).start()


@pytest.fixture(autouse=True)
def handlers() -> Any:
    """Put the process's own handling of signals back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupt._state.update(deferred=0, pending=0, raised=0, ending=0)


def bake(
    seen: Seen, *asked: tuple[str, ...], at_once: int = 8, **environment: str
) -> tuple[int, list[Child]]:
    children: list[Child] = [Acted(f"p{index}", words) for index, words in enumerate(asked)]
    progress = Progress(seen)
    Children(children, progress, {**os.environ, **environment}).bake(at_once)
    return summarize(children, {}, progress), children


def test_each_ends_in_its_own_way_and_the_most_serious_counts() -> None:
    seen = Seen()
    code, children = bake(seen, ("0", ""), ("4", ""), ("5", ""), ("0", ""))
    assert code == 4
    assert [child.code for child in children] == [0, 4, 5, 0]
    summary = seen.of("summary")[0]
    assert seen.events[-1] is summary or seen.events[-1] == summary
    assert [one["verdict"] for one in summary["bakes"]] == ["good", "bad", "bad", "good"]
    assert summary["bakes"][0]["image"] == "ami-1"
    assert summary["bakes"][0]["directory"] == "runs/r1"
    assert summary["exit_code"] == 4
    assert "p0" in summary["text"] and "ami-1" in summary["text"]


def test_every_event_names_its_profile_and_keeps_its_time() -> None:
    seen = Seen()
    bake(seen, ("0", ""), ("0", ""))
    reported = seen.of("reported")
    assert {event["profile"] for event in reported} == {"p0", "p1"}
    assert {event["at"] for event in reported} == {0.5}


def test_what_is_no_event_is_heard_too_before_the_end() -> None:
    seen = Seen()
    bake(seen, ("2", ""))
    kinds = [event["event"] for event in seen.events]
    assert {event["text"] for event in seen.of("said")} == {"no event", "error: told at the end"}
    assert max(index for index, kind in enumerate(kinds) if kind == "said") < kinds.index("ended")


def test_no_more_run_at_once_than_asked() -> None:
    seen = Seen()
    bake(seen, *[("0", "")] * 5, at_once=2)
    running = most = 0
    for event in seen.events:
        running += {"started": 1, "ended": -1}.get(event["event"], 0)
        most = max(most, running)
    assert most == 2
    assert len(seen.of("ended")) == 5


def test_a_bake_has_nobody_to_ask() -> None:
    seen = Seen()
    bake(seen, ("0", "stdin"))
    assert "stdin has ''" in seen.notes


def test_a_secret_that_a_bake_lets_out_is_taken_out(capfd: pytest.CaptureFixture[str]) -> None:
    seen = Seen()
    bake(seen, ("0", "secret"))
    assert seen.said("a token: [redacted]") and not seen.said(24 * "x")


def test_a_killed_one_may_have_left_something_and_the_others_go_on() -> None:
    seen = Seen()
    code, _ = bake(seen, ("-9", ""), ("0", ""))
    assert code == 6
    summary = seen.of("summary")[0]
    assert [one["verdict"] for one in summary["bakes"]] == ["killed by SIGKILL", "good"]
    assert "bake sweep" in summary["text"]


def test_one_that_cant_be_started_fails_alone() -> None:
    seen, progress = Seen(), None
    absent = Acted("absent", ("0", ""))
    absent.command = lambda: ["/nowhere/python"]  # type: ignore[method-assign]
    progress = Progress(seen)
    children: list[Child] = [absent, Acted("there", ("0", ""))]
    Children(children, progress, os.environ).bake(1)
    assert [child.code for child in children] == [5, 0]
    assert "could not be started" in str(absent.facts["message"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_and_their_removals_are_waited_for(number: signal.Signals) -> None:
    interrupt.install()
    seen = Watched("run", 2, lambda: os.kill(os.getpid(), number))
    code, children = bake(seen, ("0", "waits"), ("0", "waits"), ("0", ""), at_once=2)
    assert code == 130
    assert [child.code for child in children] == [130, 130, None]
    assert seen.notes.count(f"removing after {number.name}") == 2
    assert seen.notes.count("removed") == 2
    verdicts = [one["verdict"] for one in seen.of("summary")[0]["bakes"]]
    assert verdicts[2] == "not started"


def test_a_second_signal_is_acknowledged_and_not_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    interrupt.install()
    twice = threading.Event()

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    class Twice(Watched):
        def show(self, event: dict[str, Any]) -> None:
            super().show(event)
            if "removing after" in str(event.get("text")) and not twice.is_set():
                twice.set()
                kill()

    seen = Twice("run", 1, kill)
    code, _ = bake(seen, ("0", "waits"))
    assert twice.is_set() and code == 130
    assert seen.notes.count("removing after") == 1
    assert "removed" in seen.notes
    assert "still removing what was created" in capfd.readouterr().err


def test_outputs_of_several_bakes_keep_their_profiles_apart(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("before=1\n")
    bake(Seen(), ("0", "output"), ("5", "output"), GITHUB_OUTPUT=str(output))
    lines = output.read_text().splitlines()
    assert lines[0] == "before=1"
    assert sorted(lines[1:]) == ["p0_digest=sha256:0", "p1_digest=sha256:5"]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 130], 130),
        ([130, 2], 2),
        ([2, 3], 3),
        ([3, 5], 5),
        ([5, 4], 4),
        ([4, 1], 1),
        ([1, 6], 6),
        ([0, 77], 1),
    ],
    ids=str,
)
def test_the_exit_code_of_the_whole_is_the_most_serious(codes: list[int], expected: int) -> None:
    assert most_serious(codes) == expected
    assert most_serious(reversed(codes)) == expected
