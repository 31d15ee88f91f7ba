"""The steps of a bake and the units on the builder as they overlapped, from the run's events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bake.report.model import Note, Span

Event = dict[str, Any]
WARNING = "WARNING: "
_STARTED = {"step_started": ("step", "bake"), "unit_started": ("unit", "builder")}
_ENDED = {"step_ended": ("step", "bake"), "unit_ended": ("unit", "builder")}


def attempts(events: Iterable[Event]) -> list[list[Event]]:
    """The events of each attempt; before `began` was written, one began where the clock starts again."""
    found: list[list[Event]] = []
    last = float("inf")
    for event in events:
        if not found or event["event"] == "began" or event["at"] < last - 1:
            found.append([])
        found[-1].append(event)
        last = event["at"]
    return found


def spans(events: Sequence[Event]) -> tuple[Span, ...]:
    """The bars of all attempts. One without an end was running when the events stopped."""
    found = [span for number, one in enumerate(attempts(events), 1) for span in _of_attempt(one, number)]
    return tuple(found)


def _of_attempt(events: Sequence[Event], attempt: int) -> list[Span]:
    first, last = events[0]["at"], events[-1]["at"]
    found: list[Span] = []
    open_: dict[tuple[str, str], int] = {}
    for event in events:
        key, lane = _STARTED.get(event["event"]) or _ENDED.get(event["event"]) or ("", "")
        if not key:
            continue
        name = str(event[key])
        if event["event"] in _STARTED:
            open_[lane, name] = len(found)
            began = round(event["at"] - first, 3)
            told = {"name": name, "began": began, "seconds": round(last - event["at"], 3), "lane": lane}
            found.append(Span.model_validate({**told, "outcome": "running", "attempt": attempt}))
        elif (index := open_.pop((lane, name), None)) is not None:
            found[index] = _ended(found[index], event)
    return found


def _ended(span: Span, event: Event) -> Span:
    told = {"seconds": event["seconds"], "outcome": event["outcome"], "waited": event.get("waited")}
    return Span.model_validate({**span.model_dump(), **told})


def step_of(events: Sequence[Event]) -> str:
    """The step in which the events stop, or in which the run failed; empty if none was."""
    spans_ = [one for one in spans(events) if one.lane == "bake"]
    failed = next((one for one in reversed(spans_) if one.outcome != "done"), None)
    return failed.name if failed else ""


def notes(events: Iterable[Event]) -> tuple[Note, ...]:
    """What the bake told, in order."""
    texts = (str(event.get("text", "")) for event in events if event["event"] == "note")
    return tuple(Note(text=one.removeprefix(WARNING), warning=one.startswith(WARNING)) for one in texts)
