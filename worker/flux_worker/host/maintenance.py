"""Scheduled events of the instance, as its metadata tells them in events/maintenance/scheduled.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_scheduled_events.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

LEAD = timedelta(minutes=15)
"""From the last received job to the event: as long as the longest job takes on the slowest GPU."""

_OVER = {"completed", "canceled", "cancelled"}


class UnreadableEvents(Exception):
    """The metadata's text is not what EC2 documents."""


@dataclass(frozen=True)
class Event:
    """A reboot, stop, retirement or maintenance, which EC2 begins at `begins` or later and ends by `ends`."""

    id: str
    code: str
    begins: datetime
    ends: datetime | None

    def is_due(self, now: datetime, booted: datetime) -> bool:
        """Whether the worker must not receive because of it.

        The instance has been rebooted or stopped since an event that began before this boot, which EC2
        lists for a while longer.
        """
        over = (self.ends is not None and now > self.ends) or self.begins < booted
        return not over and now >= self.begins - LEAD

    def __str__(self) -> str:
        return f"{self.code} scheduled for {self.begins:%Y-%m-%d %H:%M} UTC"


def parse(text: str) -> list[Event]:
    """The events that are neither completed nor canceled. Raises UnreadableEvents."""
    try:
        return list(_events(json.loads(text)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableEvents(f"{text[:200]!r}: {error}") from error


def _events(listed: list[dict[str, Any]]) -> Iterator[Event]:
    for one in listed:
        # Both marks are documented: the state in the metadata, the description's beginning in the API.
        ended = str(one.get("Description", "")).lower().startswith(("[completed]", "[canceled]"))
        if ended or str(one.get("State", "active")).lower() in _OVER:
            continue
        begins, ends = _time(one["NotBefore"]), one.get("NotAfter")
        name = str(one.get("EventId") or f"{one['Code']} {begins}")
        yield Event(name, str(one["Code"]), begins, _time(ends) if ends else None)


def _time(text: str) -> datetime:
    """A time such as `21 Jan 2019 09:00:43 GMT`."""
    found = parsedate_to_datetime(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def booted() -> datetime:
    """When this instance booted."""
    return datetime.now(UTC) - timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
