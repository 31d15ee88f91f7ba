"""moto's EventBridge, which delivers to a queue only where the queue's policy lets the rule.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sqs-permissions
"""

from __future__ import annotations

import logging
from typing import Any, Final

from moto.events.models import Rule

from bake.localcloud.api.access.evaluation import Caller, evaluate
from bake.localcloud.api.access.inventory import Inventory
from bake.localcloud.api.access.needs import Need
from bake.localcloud.settings import ACCOUNT

log = logging.getLogger(__name__)

SERVICE: Final = Caller("Service", frozenset({"events.amazonaws.com"}))


def delivers(inventory: Inventory, rule: str, queue: str) -> bool:
    """Whether the queue's policy lets EventBridge send messages for the rule; both by their ARNs."""
    context = {"aws:SourceArn": (rule,), "aws:SourceAccount": (ACCOUNT,)}
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
            of_moto(self, resource_id, event, group_id)
        else:
            log.warning("rule %s: the policy of %s does not let it send", self.arn, queue)

    Rule._send_to_sqs_queue = send
