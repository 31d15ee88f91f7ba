"""EventBridge: events are kept in memory and go to the queues that a rule names as targets."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

from .http import Answer, Reply, Request
from .sqs import Sqs

_JSON = {"Content-Type": "application/x-amz-json-1.1"}
_REGION, _ACCOUNT = "eu-west-1", "123456789012"


class _NoBus(Exception):
    """There is no bus of this name."""


class Events:
    """All buses. A rule's pattern is not read: every event goes to every target of its bus."""

    def __init__(self, sqs: Sqs) -> None:
        self._sqs = sqs
        self._targets: dict[str, list[str]] = {"default": []}
        """By bus, the ARNs of queues."""
        self._numbers = itertools.count(1)
        self._operations = {
            "CreateEventBus": self._create_event_bus,
            "DescribeEventBus": self._describe_event_bus,
            "PutRule": self._put_rule,
            "PutTargets": self._put_targets,
            "PutEvents": self._put_events,
        }

    def handle(self, request: Request, reply: Reply) -> str:
        """Answer at once."""
        operation = request.headers["x-amz-target"].partition(".")[2]
        try:
            content = self._operations[operation](json.loads(request.body))
            reply.send((200, _JSON, json.dumps(content).encode()))
        except _NoBus as error:
            reply.send(_not_found(f"Event bus {error} does not exist."))
        return f"events {operation}"

    def _bus(self, name: str) -> list[str]:
        if name not in self._targets:
            raise _NoBus(name)
        return self._targets[name]

    def _create_event_bus(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._targets.setdefault(asked["Name"], [])
        return {"EventBusArn": _arn(asked["Name"])}

    def _describe_event_bus(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("Name", "default")
        self._bus(name)
        return {"Name": name, "Arn": _arn(name)}

    def _put_rule(self, asked: dict[str, Any]) -> dict[str, Any]:
        bus = asked["EventBusName"]
        self._bus(bus)
        return {"RuleArn": f"arn:aws:events:{_REGION}:{_ACCOUNT}:rule/{bus}/{asked['Name']}"}

    def _put_targets(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._bus(asked["EventBusName"]).extend(target["Arn"] for target in asked["Targets"])
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def _put_events(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Accept everything; an event for a bus that does not exist goes nowhere, as at AWS."""
        entries = [{"EventId": self._put_event(entry)} for entry in asked["Entries"]]
        return {"FailedEntryCount": 0, "Entries": entries}

    def _put_event(self, entry: dict[str, Any]) -> str:
        number = f"00000000-0000-0000-0000-{next(self._numbers):012}"
        event = {
            "version": "0",
            "id": number,
            "detail-type": entry["DetailType"],
            "source": entry["Source"],
            "account": _ACCOUNT,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": _REGION,
            "resources": entry.get("Resources", []),
            "detail": json.loads(entry["Detail"]),
        }
        name = entry.get("EventBusName", "default").rpartition("/")[2]
        for arn in self._targets.get(name, []):
            self._sqs.send(arn, json.dumps(event))
        return number


def _arn(name: str) -> str:
    return f"arn:aws:events:{_REGION}:{_ACCOUNT}:event-bus/{name}"


def _not_found(text: str) -> Answer:
    content = {"__type": "ResourceNotFoundException", "message": text}
    return 400, _JSON, json.dumps(content).encode()
