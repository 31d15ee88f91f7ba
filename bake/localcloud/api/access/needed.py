"""Find what a call needs, whichever service it is for."""

from __future__ import annotations

from collections.abc import Sequence

from bake.localcloud.api.access import ec2_needs, service_needs
from bake.localcloud.api.access.inventory import Inventory
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.operation_request import OperationRequest


def needs_of(requested: OperationRequest, inventory: Inventory) -> Sequence[Need] | None:
    """The needs of a call, in the order in which they are evaluated.

    None for an operation without an entry: only the administrator may call it.
    """
    if requested.service == "s3":
        return requested.needs
    if requested.service == "ec2":
        return ec2_needs.needs_of(requested.operation, requested.region, requested.content, inventory)
    return service_needs.needs_of(
        requested.service,
        requested.operation,
        requested.region,
        requested.content,
        requested.path,
        inventory,
    )
