"""A screen for tests: it keeps what a bake shows."""

from __future__ import annotations

from typing import Any


class Seen:
    """Keeps the events in their order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def show(self, event: dict[str, Any]) -> None:
        self.events.append(dict(event))

    def close(self) -> None:
        """Nothing to close."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def notes(self) -> str:
        return "\n".join(event["text"] for event in self.of("note"))

    def said(self, words: str) -> bool:
        """Whether any event's text has these words."""
        return any(words in str(event.get("text", "")) for event in self.events)
