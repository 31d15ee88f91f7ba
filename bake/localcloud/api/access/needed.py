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
        return _of_ec2(requested, inventory)
    return service_needs.needs_of(
        requested.service,
        requested.operation,
        requested.region,
        requested.content,
        requested.path,
        inventory,
    )


def _of_ec2(requested: OperationRequest, inventory: Inventory) -> Sequence[Need] | None:
    operation, region = requested.operation, requested.region
    if operation != "RunInstances":
        return ec2_needs.needs_of(operation, region, requested.content, inventory)
    content, parameter = _launch(requested)
    found = ec2_needs.needs_of(operation, region, content, inventory) or []
    return found + (service_needs.parameter_needs(parameter, region, inventory) if parameter else [])


def _launch(requested: OperationRequest) -> tuple[Mapping[str, Any], str]:
    """A launch with what its template and its SSM parameter say, and the parameter's name, or "".

    All of it is authorised, wherever it is written.
    """
    tree, backend, parameter = None, ec2_backends[ACCOUNT][requested.region], ""
    with suppress(EC2ClientError):  # refused later, whoever calls
        tree = launch_templates.expand(parameters.read(requested.content), backend)
        image = tree.get("ImageId", "")
        if image.startswith(launch_templates.BY_PARAMETER):
            parameter = image.removeprefix(launch_templates.BY_PARAMETER)
            tree = launch_templates.resolve_image(tree, backend)
    return (requested.content if tree is None else parameters.flat("RunInstances", tree)), parameter
