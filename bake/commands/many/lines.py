"""The lines of what is told of several bakes only."""

from __future__ import annotations

from typing import Any


def line_of(event: dict[str, Any]) -> str | None:
    """The line of an event that only several bakes have; None for any other."""
    match event["event"]:
        case "started":
            return f"started, process {event['pid']}"
        case "ended":
            return f"ended with {event['exit_code']} after {event['seconds']:.0f} s"
        case "said" | "left_out":
            return str(event["text"])
    return None
