"""Report a bake's progress to people and programs.

Every event goes to `events.jsonl` in the run directory and to one screen: rich on a terminal, plain lines
elsewhere, JSON lines with `--json`.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from bake import interrupt
from bake.redaction import redact_all
from bake.waits import Wait, Waits

EARLY = 200  # events that are kept until there is a file for them


@dataclass
class Tally:
    """Counts API calls and SSH commands, and knows the progress and the waits of a bake."""

    api_calls: int = 0
    ssh_commands: int = 0
    moved_at: float = field(default_factory=time.monotonic)
    last_move: str = ""
    waits: Waits = field(default_factory=Waits)
    _seen: set[tuple[str, str]] = field(default_factory=set)
    _most: dict[str, float] = field(default_factory=dict)

    def moved(self, what: str) -> None:
        """Take note of progress, which renews the lease; `what` tells people of it."""
        self.moved_at, self.last_move = time.monotonic(), what

    def saw(self, what: str, state: str) -> None:
        """A state of something is progress when it shows for the first time."""
        if (what, state) not in self._seen:
            self._seen.add((what, state))
            self.moved(f"{what}: {state}")

    def grew(self, what: str, amount: float) -> None:
        """An amount is progress when it is more than ever before."""
        if amount > self._most.get(what, 0):
            self._most[what] = amount
            self.moved(f"{what} went on")

    @property
    def waited(self) -> float:
        """The seconds that the main thread has waited for AWS and the machines."""
        return self.waits.main_seconds

    def waiting(self, what: str, limit: float | None = None) -> AbstractContextManager[Wait]:
        """Wait for `what` as the block, for `limit` seconds at most if there is a limit."""
        return self.waits.one(what, limit)


@dataclass(frozen=True)
class StepTime:
    """One finished step: wall seconds, of which `waited` were for remote systems, and its calls."""

    name: str
    seconds: float
    waited: float
    api_calls: int
    ssh_commands: int


class Screen(Protocol):
    """Shows events as they arrive; `close` restores the terminal."""

    def show(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class Nothing:
    """Shows nothing; replaces a screen that failed."""

    def show(self, event: dict[str, Any]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to close."""


class Progress:
    """Takes the progress reports of steps. Safe to use from several threads.

    It never raises: a screen or a file that fails is dropped. If the reader of a pipe has gone, nobody waits
    for the bake, so it is asked to end.
    """

    def __init__(self, screen: Screen, tally: Tally | None = None) -> None:
        self.tally = tally or Tally()
        self.tally.waits.tell, self.tally.waits.over = self._waits, self._waited
        self.steps: list[StepTime] = []
        self.notes: list[str] = []
        self.ended_by: BaseException | None = None  # the error that was told last
        self._screen = screen
        self._file: IO[str] | None = None
        self._early: deque[dict[str, Any]] = deque(maxlen=EARLY)
        self._lock = threading.Lock()
        self._started, self._began = time.monotonic(), datetime.now(UTC)
        self._begin: Callable[[str], None] = lambda step: None

    def record_to(self, path: Path, begin: Callable[[str], None] = lambda step: None) -> None:
        """Write every event to `path`, a JSON object a line; call `begin` with each new step from now on.

        The first one, `began`, has the time to which the `at` of those that follow are the seconds.
        """
        began = self._began.strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock:
            self._file = path.open("a", encoding="utf-8")
            early = list(self._early)
            self._early.clear()
            first = {"event": "began", "at": 0.0, "time": began}
            told = [lost for event in (first, *early) if (lost := self._record(event))]
            for lost in told:
                self._show({**first, "event": "note", "text": lost})
        self._begin = begin

    def stop_recording(self) -> None:
        """Close the file: what is told from now on is about files that have its hash."""
        with self._lock, suppress(OSError, ValueError):
            if self._file is not None:
                self._file.close()
        self._file = None

    def emit(self, kind: str, **facts: Any) -> None:
        """Record an event, and show it."""
        event = redact_all({"event": kind, "at": round(time.monotonic() - self._started, 3), **facts})
        with self._lock:
            lost = self._record(event)
            gone = self._show(event)
            if lost:
                gone = self._show({**event, "event": "note", "text": lost}) or gone
        if gone:
            interrupt.request()

    def _record(self, event: dict[str, Any]) -> str:
        """Write it to the file; why that is not done any more, once."""
        if self._file is None:
            self._early.append(event)
            return ""
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            lost, self._file = self._file, None
            with suppress(OSError, ValueError):
                lost.close()
            return f"no more events are written to {lost.name}: {getattr(error, 'strerror', None) or error}"
        return ""

    def _show(self, event: dict[str, Any]) -> bool:
        """Show it; whether the screen's reader has just gone."""
        try:
            self._screen.show(event)
        except Exception as error:  # whatever a terminal does, the bake and its removals go on
            self._screen = Nothing()
            return isinstance(error, BrokenPipeError)
        return False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run the block as a step of the bake: show its outcome, and record its time and calls in `steps`."""
        before = (time.monotonic(), self.tally.waited, self.tally.api_calls, self.tally.ssh_commands)
        self._begin(name)
        self.tally.moved(f"{name} began")
        self.emit("step_started", step=name)
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            done = StepTime(
                name,
                round(time.monotonic() - before[0], 2),
                round(self.tally.waited - before[1], 2),
                self.tally.api_calls - before[2],
                self.tally.ssh_commands - before[3],
            )
            self.steps.append(done)
            self.tally.moved(f"{name} ended")
            self.emit(
                "step_ended",
                step=name,
                outcome=outcome,
                seconds=done.seconds,
                waited=done.waited,
                api_calls=done.api_calls,
                ssh_commands=done.ssh_commands,
            )

    @contextmanager
    def unit(self, name: str) -> Iterator[None]:
        """Record when the block, a unit that works on the builder, began and ended; nothing is shown."""
        started, outcome = time.monotonic(), "failed"
        self.emit("unit_started", unit=name)
        try:
            yield
            outcome = "done"
        finally:
            seconds = round(time.monotonic() - started, 2)
            self.emit("unit_ended", unit=name, outcome=outcome, seconds=seconds)

    def note(self, text: str) -> None:
        """Show a line on every screen and keep it for the report."""
        self.notes.append(text)
        self.emit("note", text=text)

    def status(self, text: str) -> None:
        """Show what is going on now; on a terminal the next status replaces it."""
        self.emit("status", text=text)

    def _waits(self, wait: Wait) -> None:
        """Show a wait that lasts."""
        self.emit(
            "waiting",
            what=wait.what,
            since=wait.since.strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(wait.seconds, 1),
            limit=wait.limit,
            detail=wait.detail,
            text=f"waiting for {wait}",
        )

    def _waited(self, wait: Wait) -> None:
        self.emit("waited", what=wait.what, seconds=round(wait.seconds, 1))

    def transfer(
        self, what: str, done: int, total: int, rate: float | None = None, left: float | None = None
    ) -> None:
        """Show the bytes transferred so far, and the rate and seconds left if known."""
        self.tally.grew(what, done)
        self.emit("transfer", what=what, done=done, total=total, rate=rate, seconds_left=left)

    def close(self) -> None:
        """Restore the terminal and close the file."""
        with self._lock:
            with suppress(Exception):
                self._screen.close()
            with suppress(OSError, ValueError):
                if self._file is not None:
                    self._file.close()
            self._file = None


# Not the digits of an id or a name.
NUMBER = re.compile(r"(?<![\w-])[0-9]+(\.[0-9]+)?")


class PlainScreen:
    """Prints lines for logs and pipes: no colour, no cursor, few lines.

    Transfers are shown at every tenth. A wait, and a status that differs from the last one in its numbers
    only, are shown once a minute.
    """

    RARELY = 60.0  # seconds

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._tenths: dict[str, int] = {}
        self._shown: dict[str, float] = {}  # what is shown once a minute -> when it was
        self._last = ""

    def show(self, event: dict[str, Any]) -> None:
        line = _line(event)
        if not line or (event["event"] == "transfer" and not self._has_grown(event)):
            return
        if event["event"] == "waiting" and self._is_recent(f"{event['what']} {event['since']}", event["at"]):
            return
        if event["event"] == "status":
            alike, before = NUMBER.sub("0", line), self._last
            self._last = alike
            if self._is_recent(alike, event["at"]) and alike == before:
                return
        print(line, file=self._stream, flush=True)

    def _has_grown(self, event: dict[str, Any]) -> bool:
        """Whether a transfer is at another tenth than when it was shown last."""
        tenth = 10 * event["done"] // max(event["total"], 1)
        before, self._tenths[event["what"]] = self._tenths.get(event["what"]), tenth
        return bool(before != tenth)

    def _is_recent(self, what: str, at: float) -> bool:
        """Whether it was shown less than a minute ago; if not, it is now."""
        if at - self._shown.get(what, float("-inf")) < self.RARELY:
            return True
        self._shown[what] = at
        return False

    def close(self) -> None:
        pass


class JsonScreen:
    """Prints one JSON object a line on stdout."""

    def show(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    def close(self) -> None:
        pass


def _line(event: dict[str, Any]) -> str:
    match event["event"]:
        case "step_started":
            return f"==> {event['step']}"
        case "step_ended":
            return f"    {event['step']} {event['outcome']} in {event['seconds']:.1f} s"
        case "note" | "status" | "waiting":
            return f"    {event['text']}"
        case "run":
            return f"\nRun {event['id']}, kept in {event['directory']}"
        case "plan" | "cold_start" | "released" | "proved" | "reported" | "changed" | "unchanged":
            return str(event["text"])
        case "transfer":
            line = f"    {event['what']}: {readable(event['done'])} of {readable(event['total'])}"
            rate, left = event.get("rate"), event.get("seconds_left")
            line += f", {readable(rate)}/s" if rate else ""
            return line + (f", {max(1, round(left / 60))} min left" if left else "")
    return ""


def readable(size: float) -> str:
    """Format bytes in decimal units, as EBS and the Hub do."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def choose_screen(*, as_json: bool) -> Screen:
    """Return the fitting screen: JSON if asked for, rich on a terminal, plain lines elsewhere."""
    if as_json:
        return JsonScreen()
    if sys.stderr is None:  # closed by who started this
        return Nothing()
    if sys.stderr.isatty():
        from bake.terminal import RichScreen  # rich takes 0.1 s to import

        return RichScreen()
    return PlainScreen()
