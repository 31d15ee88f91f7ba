"""Launch templates: RunInstances with one is rewritten to one without, so that no field is lost on the way.

What the call asks for goes before what the template has: structures are merged by field, block devices by the
device's name, network cards by their index, tags by kind and key. All other lists are the call's or the
template's: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/create-launch-template.html
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ssm.exceptions import SSMException
from moto.ssm.models import ssm_backends

from bake.localcloud.api import references
from bake.localcloud.api.parameters import Tree

# Lists whose entries are merged, and the field that names an entry.
_MERGED = {"BlockDeviceMappings": "DeviceName", "NetworkInterfaces": "DeviceIndex"}
# Structures that name one thing in one of several ways.
_WHOLE = {"IamInstanceProfile"}
# RunInstances' names of what templates call otherwise.
_RENAMED = {"RamDiskId": "RamdiskId", "ElasticGpuSpecifications": "ElasticGpuSpecification"}
BY_PARAMETER = "resolve:ssm:"
_UNKNOWN_NAME = "At least one of the launch templates specified in the request does not exist."


def expand(tree: Tree, backend: Any) -> Tree:
    """A RunInstances with its template's fields in it; `LaunchTemplate` has then id and number alone.

    EC2ClientError for a template, or a version of it, that is not there.
    """
    named = tree.get("LaunchTemplate")
    if named is None:
        return tree
    template = find(named, backend)
    version = version_of(template, named.get("Version") or "$Default")
    data = _texts(version.data)
    merged = merge({_RENAMED.get(name, name): value for name, value in data.items()}, tree)
    merged.pop("InstanceRequirements", None)  # of fleets; RunInstances passes it over
    merged["LaunchTemplate"] = {"LaunchTemplateId": template.id, "Version": str(version.number)}
    return merged


def resolve_image(tree: Tree, backend: Any) -> Tree:
    """A RunInstances with the AMI's id in place of the SSM parameter that names it, `resolve:ssm:NAME`."""
    image = tree.get("ImageId", "")
    if not image.startswith(BY_PARAMETER):
        return tree
    return {**tree, "ImageId": image_in_parameter(image.removeprefix(BY_PARAMETER), backend)}


def image_in_parameter(name: str, backend: Any) -> str:
    """What a parameter of the region holds: `NAME`, `NAME:VERSION`, `NAME:LABEL`, or its ARN instead."""
    try:
        found = ssm_backends[backend.account_id][backend.region_name].get_parameter(name)
    except SSMException:  # it has no such version
        found = None
    if found is None:
        raise EC2ClientError(
            "InvalidParameterValue", f"There is no parameter {name[:200]} in Systems Manager"
        )
    return str(found.value)


def expand_source(tree: Tree, backend: Any) -> Tree:
    """A CreateLaunchTemplateVersion with the fields of its source version in it."""
    source = tree.get("SourceVersion")
    if source is None:
        return tree
    version = version_of(find(tree, backend), source)
    data = merge(_texts(version.data), tree.get("LaunchTemplateData") or {})
    return {**tree, "LaunchTemplateData": data}


def find(named: Mapping[str, str], backend: Any) -> Any:
    """The template that `LaunchTemplateId` or `LaunchTemplateName` names; EC2ClientError where none is."""
    identity, name = named.get("LaunchTemplateId"), named.get("LaunchTemplateName")
    if bool(identity) == bool(name):
        both = "not both" if identity else "one of them"
        raise EC2ClientError(
            "InvalidParameterCombination" if identity else "MissingParameter",
            f"Specify the launch template by its ID or its name: {both}.",
        )
    if name:
        identity = backend.launch_template_name_to_ids.get(name)
        if identity is None:
            raise EC2ClientError("InvalidLaunchTemplateName.NotFoundException", _UNKNOWN_NAME)
    references.TEMPLATE.check(backend, [str(identity)])
    return backend.get_launch_template(identity)


def version_of(template: Any, asked: str) -> Any:
    """A template's version by number, `$Latest` or `$Default`; EC2ClientError for one that is not there."""
    by_number = {str(one.number): one for one in template.versions}
    by_number |= {"$Latest": template.versions[-1], "$Default": template.default_version()}
    if asked not in by_number:
        raise EC2ClientError(
            "InvalidLaunchTemplateId.VersionNotFound",
            f"Could not find the specified version {asked[:40]} for the launch template {template.id}.",
        )
    return by_number[asked]


def merge(under: Tree, over: Tree) -> Tree:
    """`over` laid upon `under`, field by field; neither is changed."""
    merged = copy.deepcopy(under)
    for name, value in over.items():
        below = merged.get(name)
        if below is None or name in _WHOLE:
            merged[name] = copy.deepcopy(value)
        elif isinstance(value, dict):
            merged[name] = merge(below, value)
        elif name in _MERGED:
            merged[name] = _by_field(below, value, _MERGED[name])
        elif name == "TagSpecifications":
            merged[name] = _tags(below, value)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def _by_field(under: list[Tree], over: list[Tree], field: str) -> list[Tree]:
    """Two lists of structures as one, where those with the same `field` are merged."""
    merged = copy.deepcopy(under)
    for entry in over:
        same = [place for place, one in enumerate(merged) if one.get(field) == entry.get(field)]
        if not same:
            merged.append(copy.deepcopy(entry))
        elif "NoDevice" in entry:
            merged[same[0]] = copy.deepcopy(entry)
        else:
            merged[same[0]] = merge(merged[same[0]], entry)
    return merged


def _tags(under: list[Tree], over: list[Tree]) -> list[Tree]:
    kinds: dict[str, dict[str, str]] = {}
    for specification in [*under, *over]:
        tags = kinds.setdefault(specification.get("ResourceType", ""), {})
        tags.update({tag.get("Key", ""): tag.get("Value", "") for tag in specification.get("Tags", [])})
    return [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        for kind, tags in kinds.items()
    ]


def _texts(value: Any) -> Any:
    """moto's record of a template with leaves as a call has them; what is not set is left out."""
    if isinstance(value, Mapping):
        return {name: _texts(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)
