"""Show progress on a terminal: a line for each finished step, a live one for the current step."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class RichScreen:
    """Shows finished steps as lines, transfers as bars, and the current step with a spinner."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._steps = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=self._console
        )
        self._bars = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        from rich.console import Group
        from rich.live import Live

        self._waits = Progress(TextColumn("  {task.description}"), TimeElapsedColumn(), console=self._console)
        self._waiting: dict[str, TaskID] = {}
        self._live = Live(Group(self._steps, self._waits, self._bars), console=self._console, transient=True)
        self._live.start()
        self._tasks: dict[str, TaskID] = {}
        self._transfers: dict[str, TaskID] = {}
        self._current: str | None = None

    def show(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "step_started":
                self._current = event["step"]
                self._tasks[event["step"]] = self._steps.add_task(f"[bold]{event['step']}[/]", total=None)
            case "step_ended":
                self._steps.remove_task(self._tasks.pop(event["step"]))
                mark = "[green]✓[/]" if event["outcome"] == "done" else "[red]✗[/]"
                self._live.console.print(f"{mark} {event['step']:<14} {event['seconds']:>7.1f} s")
            case "status":
                if self._current in self._tasks:
                    text = f"[bold]{self._current}[/] [dim]{_escape(event['text'])}[/]"
                    self._steps.update(self._tasks[self._current], description=text)
            case "note":
                self._live.console.print(f"  [dim]{_escape(event['text'])}[/]")
            case "run":
                self._live.console.print(f"\nRun {event['id']}, kept in {_escape(event['directory'])}")
            case "plan" | "cold_start" | "released" | "proved" | "reported" | "changed" | "unchanged":
                self._live.console.print(_escape(event["text"]))
            case "transfer":
                self._transfer(event)
            case "waiting":
                self._wait(event)
            case "waited" if event["what"] in self._waiting:
                self._waits.remove_task(self._waiting.pop(event["what"]))

    def _wait(self, event: dict[str, Any]) -> None:
        """Show a wait on a line of its own, with the time that it lasts."""
        text = f"[dim]{_escape(event['text'])}[/]"
        if event["what"] not in self._waiting:
            self._waiting[event["what"]] = self._waits.add_task(text, total=None)
            task = self._waits.tasks[-1]
            task.start_time = (task.start_time or 0.0) - event["seconds"]
        self._waits.update(self._waiting[event["what"]], description=text)

    def _transfer(self, event: dict[str, Any]) -> None:
        what = event["what"]
        if what not in self._transfers:
            self._transfers[what] = self._bars.add_task(what, total=event["total"])
        self._bars.update(self._transfers[what], completed=event["done"], total=event["total"])
        if event["done"] >= event["total"]:
            self._bars.remove_task(self._transfers.pop(what))

    def close(self) -> None:
        self._live.stop()


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
