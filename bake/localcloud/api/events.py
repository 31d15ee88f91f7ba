"""EventBridge where moto differs: events for a bus that is not there are lost, and the sender hears success.

https://github.com/aws/aws-cli/issues/9186
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from moto.events.models import EventsBackend

_AT_ONCE = 10  # events in a call, at most
_of_moto = EventsBackend.put_events


def install(shows: Callable[[str], bool]) -> None:
    """Let PutEvents lose what it has no bus for; `shows` says whether a bus with such a key is known yet."""

    def put_events(self: Any, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(events) > _AT_ONCE:
            return list(_of_moto(self, events))
        there = [_there(self, event, shows) for event in events]
        sent = iter(_of_moto(self, [event for event, known in zip(events, there, strict=True) if known]))
        return [next(sent) if known else {"EventId": str(uuid.uuid4())} for known in there]

    EventsBackend.put_events = put_events


def _there(backend: Any, event: dict[str, Any], shows: Callable[[str], bool]) -> bool:
    """Whether an event reaches a bus; moto answers for one without a source, a type or a detail."""
    if not all(event.get(name) for name in ("Source", "DetailType", "Detail")):
        return True
    name = backend._normalize_event_bus_arn(event.get("EventBusName"))
    return name in backend.event_buses and shows(f"events:CreateEventBus {name}")
