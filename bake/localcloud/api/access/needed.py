"""Find what a call needs, whichever service it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends

from bake.localcloud.api import launch_templates, parameters
from bake.localcloud.api.access import ec2_needs, service_needs
from bake.localcloud.api.access.inventory import Inventory
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.settings import ACCOUNT


def needs_of(requested: OperationRequest, inventory: Inventory) -> Sequence[Need] | None:
    """The needs of a call, in the order in which they are evaluated.

    None for an operation without an entry: only the administrator may call it.
    """
    if requested.service == "s3":
        return requested.needs
    if requested.service == "ec2":
        content = _with_template(requested) if requested.operation == "RunInstances" else requested.content
        return ec2_needs.needs_of(requested.operation, requested.region, content, inventory)
    return service_needs.needs_of(
        requested.service,
        requested.operation,
        requested.region,
        requested.content,
        requested.path,
        inventory,
    )


def _with_template(requested: OperationRequest) -> Mapping[str, Any]:
    """A launch with what its launch template says: all of it is authorised, wherever it is written."""
    with suppress(EC2ClientError):  # refused later, whoever calls
        backend = ec2_backends[ACCOUNT][requested.region]
        tree = launch_templates.expand(parameters.read(requested.content), backend)
        return parameters.flat("RunInstances", tree)
    return requested.content
