"""Find what a call needs, whichever service it is for."""

from __future__ import annotations

import re
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
    if (requested.service, requested.operation) == ("autoscaling", "StartInstanceRefresh"):
        return [*(_of_service(requested, inventory) or ()), *_of_refresh(requested, inventory)]
    return _of_service(requested, inventory)


def _of_service(requested: OperationRequest, inventory: Inventory) -> Sequence[Need] | None:
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


def _of_refresh(requested: OperationRequest, inventory: Inventory) -> list[Need]:
    """What Auto Scaling asks of whoever starts a refresh: to launch by the templates that it is to have.

    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
    It launches with its own role, which has grants for disks' keys of its own.
    """
    group = inventory.scaling_group(requested.region, str(requested.content.get("AutoScalingGroupName", "")))
    found: list[Need] = []
    for named in _templates(requested.content):
        content = {"Action": "RunInstances", "MinCount": "1", "MaxCount": "1"}
        content |= {f"LaunchTemplate.{field}": value for field, value in named.items()}
        content |= {"SubnetId": group.subnet} if group.subnet else {}
        launch = OperationRequest("ec2", "RunInstances", requested.region, content)
        found += [one for one in _of_ec2(launch, inventory) or () if not one.action.startswith("kms:")]
    return list(dict.fromkeys(found))


_SPECIFICATION = re.compile(
    r"(DesiredConfiguration\..*?LaunchTemplate(?:Specification)?)\.(LaunchTemplateId|LaunchTemplateName|Version)"
)


def _templates(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """The launch templates that a desired configuration names, by its flat parameters."""
    found: dict[str, dict[str, str]] = {}
    for name, value in content.items():
        if match := _SPECIFICATION.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = str(value)
    return list(found.values())


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
