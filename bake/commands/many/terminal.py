"""Show several bakes on a terminal: a row for each, with its step and what that waits for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table as Rows
from rich.text import Text

from bake.commands.many.lines import line_of
from bake.progress import readable


@dataclass
class Row:
    """What is known of a bake; `end` is when it ended, by the monotonic clock."""

    state: str = "waiting for its turn"
    detail: str = ""
    style: str = "dim"
    begin: float | None = None
    end: float | None = None

    def time(self, now: float) -> str:
        """Minutes and seconds that it has taken."""
        if self.begin is None:
            return ""
        seconds = int((self.end or now) - self.begin)
        return f"{seconds // 60}:{seconds % 60:02}"


class Table:
    """A table that follows the bakes; notes, errors and verdicts stay above it as lines."""

    def __init__(self, profiles: Sequence[str], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._rows = {profile: Row() for profile in profiles}
        self._live = Live(
            get_renderable=self._render, console=self._console, transient=True, refresh_per_second=4
        )
        self._live.start()

    def show(self, event: dict[str, Any]) -> None:
        profile = event.get("profile")
        if event["event"] == "summary":
            self._print(event["text"])
        elif profile not in self._rows:
            if event["event"] in ("note", "left_out"):
                self._print(f"{profile}: {event['text']}" if profile else event["text"], "dim")
        else:
            self._follow(self._rows[profile], event)
            self._tell(profile, event)

    def _follow(self, row: Row, event: dict[str, Any]) -> None:
        match event["event"]:
            case "started":
                row.begin, row.state, row.style = time.monotonic(), "starting", ""
            case "step_started":
                row.state, row.detail = event["step"], ""
            case "status" | "waiting":
                row.detail = event["text"].splitlines()[0] if event["text"] else ""
            case "transfer":
                row.detail = f"{event['what']}: {readable(event['done'])} of {readable(event['total'])}"
            case "ended":
                done = event["exit_code"] == 0
                row.end, row.detail, row.style = time.monotonic(), "", "green" if done else "red"
                row.state = "done" if done else f"ended with {event['exit_code']}"

    def _tell(self, profile: str, event: dict[str, Any]) -> None:
        match event["event"]:
            case "note" | "said" | "reported":
                for line in event["text"].splitlines():
                    self._print(f"{profile}: {line}", "dim" if event["event"] == "note" else "")
            case "ended":
                self._print(f"{profile}: {line_of(event)}")

    def _print(self, text: str, style: str = "") -> None:
        self._live.console.print(Text(text, style))

    def _render(self) -> Rows:
        now = time.monotonic()
        rows = Rows.grid(padding=(0, 2))
        for profile, row in self._rows.items():
            texts = (Text(one, row.style) for one in (profile, row.time(now), row.state))
            rows.add_row(*texts, Text(row.detail, "dim", no_wrap=True, overflow="ellipsis"))
        return rows

    def close(self) -> None:
        """Restore the terminal."""
        self._live.stop()
