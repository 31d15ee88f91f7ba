"""What EC2 and Auto Scaling announce in the metadata: scheduled events, and an instance's next state.

Nothing is carried out here: whoever announces a reboot or a termination does it afterwards, by the API.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_scheduled_events.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

from bake.errors import UsageError
from bake.localcloud.api.clock import CloudClock, parse_span
from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.network.control import Routes

ROUTE = "/-/announcements"
_WINDOW = timedelta(hours=2)  # between an event's earliest beginning and its latest end


class Announcements:
    """Announces to running instances. What is announced is in moto's record of the instance."""

    def __init__(self, instances: LocalInstances, clock: CloudClock) -> None:
        self._instances, self._clock = instances, clock

    def schedule(self, identity: str, code: str, ahead: timedelta) -> dict[str, str]:
        """Announce an event that begins after `ahead`; as the metadata tells it."""
        instance = self._find(identity)
        begins = self._clock.now() + ahead
        event = {
            "NotBefore": _stamp(begins),
            "Code": code,
            "Description": f"scheduled {code.rpartition('-')[2]}",
            "EventId": f"instance-event-0{secrets.token_hex(8)}",
            "NotAfter": _stamp(begins + _WINDOW),
            "State": "active",
        }
        instance.scheduled_events = [*_events(instance), event]
        return event

    def cancel(self, identity: str) -> int:
        """Cancel all events of an instance; how many there were."""
        instance = self._find(identity)
        active = [event for event in _events(instance) if event["State"] == "active"]
        instance.scheduled_events = [{**event, "State": "canceled"} for event in _events(instance)]
        return len(active)

    def target(self, identity: str, state: str) -> None:
        """Announce the state in Auto Scaling that the instance is to have next."""
        self._find(identity).target_lifecycle_state = state

    def _find(self, identity: str) -> Any:
        if identity not in self._instances:
            raise UsageError(f"there is no instance {identity[:40]}", hint="bake local status")
        instance = self._instances[identity]
        if instance.state not in {"pending", "running"}:
            raise UsageError(f"{identity} is {instance.state}, and nobody there would hear of it")
        return instance.moto


def maintenance(instance: Any) -> dict[str, str]:
    """The metadata's `events/maintenance` of one of moto's instances."""
    found = _events(instance)
    active = [event for event in found if event["State"] == "active"]
    over = [event for event in found if event["State"] != "active"]
    return {"history": json.dumps(over, indent=2), "scheduled": json.dumps(active, indent=2)}


def target_of(instance: Any) -> str | None:
    """The state in Auto Scaling that was announced to one of moto's instances; None if none was."""
    return getattr(instance, "target_lifecycle_state", None)


def _events(instance: Any) -> list[dict[str, str]]:
    return list(getattr(instance, "scheduled_events", ()))


def _stamp(at: datetime) -> str:
    """A time such as `21 Jan 2019 09:00:43 GMT`."""
    return format_datetime(at.replace(microsecond=0), usegmt=True).partition(", ")[2]


def routes(announcements: Announcements) -> Routes:
    """The control routes, which `bake local announce` calls."""

    def announce(request: Any) -> dict[str, Any]:
        instance, asked = request.args.get("instance", ""), request.args
        if state := asked.get("target"):
            announcements.target(instance, state)
            return {"target": state}
        ahead = parse_span(f"+{asked.get('ahead', '')}")
        return {"event": announcements.schedule(instance, asked.get("event", ""), ahead)}

    def cancel(request: Any) -> dict[str, int]:
        return {"canceled": announcements.cancel(request.args.get("instance", ""))}

    return {("POST", ROUTE): announce, ("DELETE", ROUTE): cancel}
