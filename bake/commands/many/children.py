"""The processes that bake, one a profile: start them, hear them, end them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from bake import interrupt
from bake.commands.many.ci_files import CiFiles
from bake.errors import EXIT_FAILED, Interrupted
from bake.progress import Progress
from bake.resources import IMPORTED_FROM

# The same bake as this one, whatever the folder is that it was called in. Its arguments: where it is imported
# from, how the user called it, and the options.
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); sys.argv[:] = sys.argv[2:]; "
    "from bake.cli import main; main()"
)
DRAIN = 5.0  # seconds for what an ended process said last; a program that it left behind may hold the pipe


@dataclass
class Child:
    """A bake of one profile, and what it has told so far.

    `code` is its exit code once it has ended, negative where a signal killed it. It stays None where the
    process was never started. `gone` is whether all that it said is heard, too.
    """

    profile: str
    words: Sequence[str]
    code: int | None = None
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    began: float = 0.0
    gone: bool = False

    def command(self) -> list[str]:
        """The process's command line."""
        python = [sys.executable, "-P", "-c", START, str(IMPORTED_FROM), sys.argv[0]]
        return [*python, *self.words, "--profile", self.profile, "--json"]

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take note of what the summary shows."""
        match event.get("event"):
            case "run":
                self.facts |= {"run": event.get("id"), "directory": event.get("directory")}
            case "released":
                self.facts["image"] = event.get("image")
            case "reported":
                self.facts |= {"verdict": event.get("verdict"), "report": event.get("report")}
            case "unchanged":
                self.facts |= {"verdict": "unchanged", "image": event.get("image")}
            case "failed":
                self.facts["message"] = event.get("message")


class Children:
    """Runs the bakes, some at once; what they tell goes to one screen."""

    def __init__(self, children: Sequence[Child], progress: Progress, environment: Mapping[str, str]) -> None:
        self._progress = progress
        self._environment = environment
        self._waiting = deque(children)
        self._running: list[Child] = []
        self._changed = threading.Event()  # a process has ended since it was cleared
        self._files = CiFiles(environment)

    def bake(self, at_once: int) -> None:
        """Bake them all, at most `at_once` side by side. One that fails changes nothing for the others.

        A signal is passed on to those that run, and the rest is not started; it returns when the last of
        them has removed what it created.
        """
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < at_once:
                    with interrupt.deferred():  # an interrupt before it is known would lose the process
                        self._start(self._waiting.popleft())
                self._await_end()
        except Interrupted as error:
            self._stop(signal.Signals[str(error)])
        except BaseException:
            self._stop(signal.SIGTERM)
            raise
        finally:
            self._files.close()

    def _stop(self, number: signal.Signals) -> None:
        """End all that run as this process was ended, and wait for their removals."""
        self._waiting.clear()
        interrupt.ending()  # another signal is acknowledged, as by a single bake
        for child in self._running:
            if child.process is not None:
                with suppress(ProcessLookupError):
                    child.process.send_signal(number)
        while self._running:
            self._await_end()

    def _await_end(self) -> None:
        """Wait until a process has ended, and take note of all that have. Nothing is lost by a signal."""
        self._changed.clear()
        ended = [child for child in self._running if child.gone]
        for child in ended:
            with interrupt.deferred():
                self._end(child)
        if self._running and not ended:
            self._changed.wait()

    def _start(self, child: Child) -> None:
        child.began = time.monotonic()
        try:
            child.process = process = subprocess.Popen(
                child.command(),
                env={**self._environment, **self._files.of(child.profile)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
            )
        except OSError as error:
            child.code, child.facts["message"] = EXIT_FAILED, f"it could not be started: {error}"
            self._tell_end(child)
            return
        self._running.append(child)
        self._progress.emit("started", profile=child.profile, pid=process.pid)
        threading.Thread(target=self._follow, args=(child, process), daemon=True).start()

    def _follow(self, child: Child, process: subprocess.Popen[str]) -> None:
        """Hear a process until it has ended."""
        heard = [
            threading.Thread(target=self._hear, args=(child, process.stdout), daemon=True),
            threading.Thread(target=self._hear_errors, args=(child, process.stderr), daemon=True),
        ]
        for thread in heard:
            thread.start()
        child.code = process.wait()
        for thread in heard:
            thread.join(DRAIN)
        child.seconds, child.gone = round(time.monotonic() - child.began, 1), True
        self._changed.set()

    def _hear(self, child: Child, stream: IO[str]) -> None:
        """Pass a bake's events on, each with its profile."""
        for line in stream:
            event = _event(line)
            if event is None:
                self._say(child, line)
                continue
            child.hear(event)
            self._progress.emit(event.pop("event"), **{**event, "profile": child.profile})

    def _hear_errors(self, child: Child, stream: IO[str]) -> None:
        for line in stream:
            if line.startswith("error: "):  # not every error is an event, too
                child.facts.setdefault("message", line.removeprefix("error: ").strip())
            self._say(child, line)

    def _say(self, child: Child, line: str) -> None:
        if line.strip():
            self._progress.emit("said", profile=child.profile, text=line.rstrip("\n"))

    def _end(self, child: Child) -> None:
        self._running.remove(child)
        self._files.take(child.profile)
        self._tell_end(child)

    def _tell_end(self, child: Child) -> None:
        self._progress.emit("ended", profile=child.profile, exit_code=child.code, seconds=child.seconds)


def _event(line: str) -> dict[str, Any] | None:
    """An event of a bake; None for any other text."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    known = isinstance(found, dict) and isinstance(found.get("event"), str) and "kind" not in found
    return found if known else None
