"""moto's EventBridge, which delivers whole events, to a queue only where its policy lets the rule.

Events for a bus that is not there are lost, and the sender hears success:
https://github.com/aws/aws-cli/issues/9186
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sqs-permissions
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

from moto.events.models import EventsBackend, Rule

from bake.localcloud.api.access.evaluation import Caller, evaluate
from bake.localcloud.api.access.inventory import Inventory
from bake.localcloud.api.access.needs import Need
from bake.localcloud.settings import ACCOUNT

log = logging.getLogger(__name__)

_AT_ONCE: Final = 10  # events in a call, at most
_of_moto = EventsBackend.put_events
SERVICE: Final = Caller("Service", frozenset({"events.amazonaws.com"}))


def delivers(inventory: Inventory, rule: str, queue: str) -> bool:
    """Whether the queue's policy lets EventBridge send messages for the rule; both by their ARNs."""
    context: dict[str, tuple[str, ...]] = {"aws:SourceArn": (rule,), "aws:SourceAccount": (ACCOUNT,)}
    context |= {"aws:SecureTransport": ("true",)}
    need = Need("sqs:SendMessage", queue, context)
    return evaluate([], need, inventory.policies_of(queue), SERVICE).allowed


def install(inventory: Inventory) -> None:
    """Make moto ask the queue's policy; to be called before the first request.

    EventBridge tells nobody but its metrics what it could not deliver.
    """
    of_moto = Rule._send_to_sqs_queue

    def send(self: Any, resource_id: str, event: dict[str, Any], group_id: str | None = None) -> None:
        queue = f"arn:aws:sqs:{self.region_name}:{self.account_id}:{resource_id}"
        if delivers(inventory, self.arn, queue):
            of_moto(self, resource_id, _whole(event, self.account_id), group_id)
        else:
            log.warning("rule %s: the policy of %s does not let it send", self.arn, queue)

    Rule._send_to_sqs_queue = send


def _whole(event: Any, account: str) -> Any:
    """With the account, which moto leaves out; what a rule's transformer made stays as it is.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
    """
    is_event = isinstance(event, dict) and {"detail-type", "detail", "source"} <= event.keys()
    return {"account": account} | event if is_event else event


def lose(shows: Callable[[str], bool]) -> None:
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
