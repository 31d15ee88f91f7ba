"""The calls that make, describe and delete launch templates and their versions, where moto lacks them.

moto finds a version by its place in a list, so that none can be deleted, and knows no alias in a template's
AMI. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/manage-launch-template-versions.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.launch_templates import LaunchTemplate, LaunchTemplateVersion
from moto.ec2.utils import generic_filter

from bake.localcloud.api import response_layer
from bake.localcloud.api.call import CALLER
from bake.localcloud.api.launch_templates import BY_PARAMETER, find, image_in_parameter, version_of
from bake.localcloud.api.parameters import invalid

_TEMPLATE_TAG = "launch-template"
_ALIASES = ("$Latest", "$Default")
_AT_MOST = 200  # versions that one call deletes
_WHICH = (
    "To describe versions of all launch templates, name $Latest, $Default or both as the versions, and no "
    "launch template; to describe those of one, name it by its ID or its name."
)
# DescribeLaunchTemplateVersions' filters that are fields of a version's data.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "ebs-optimized": ("EbsOptimized",),
    "http-endpoint": ("MetadataOptions", "HttpEndpoint"),
    "http-tokens": ("MetadataOptions", "HttpTokens"),
    "iam-instance-profile": ("IamInstanceProfile", "Arn"),
    "image-id": ("ImageId",),
    "instance-type": ("InstanceType",),
    "kernel-id": ("KernelId",),
    "ram-disk-id": ("RamDiskId",),
}


class LocalVersion(LaunchTemplateVersion):  # type: ignore[misc]
    """One version, with who made it."""

    def __init__(self, template: Any, number: int, data: dict[str, Any], description: str) -> None:
        super().__init__(template, number, data, description)
        self.created_by = CALLER.get()

    def get_filter_value(self, name: str, method: str | None = None) -> Any:
        """What a filter of DescribeLaunchTemplateVersions compares."""
        if name == "create-time":
            return f"{self.create_time:%Y-%m-%dT%H:%M:%S.000Z}"
        if name == "is-default-version":
            return self.template.is_default(self)
        if name not in _FIELDS:
            raise EC2ClientError("InvalidParameterValue", f"The filter '{name[:100]}' is invalid")
        value: Any = self.data
        for field in _FIELDS[name]:
            value = value.get(field) if isinstance(value, Mapping) else None
        return value


class LocalTemplate(LaunchTemplate):  # type: ignore[misc]
    """A template whose versions keep their numbers when others are deleted."""

    last_number = 0

    @property
    def tags(self) -> Any:
        """Its tags of now; moto keeps those that it was made with."""
        return self.get_tags()

    @tags.setter
    def tags(self, value: Any) -> None:
        """Pass over what moto sets."""

    def create_version(self, data: dict[str, Any], description: str) -> LocalVersion:
        self.last_number += 1
        version = LocalVersion(self, self.last_number, data, description)
        self.versions.append(version)
        return version

    def get_version(self, num: Any) -> Any:
        return version_of(self, str(num))

    def default_version(self) -> Any:
        return next(one for one in self.versions if one.number == self.default_version_number)


class LaunchTemplates:
    """The part of a region's backend that makes launch templates."""

    launch_templates: dict[str, Any]
    launch_template_name_to_ids: dict[str, str]
    launch_template_insert_order: list[str]

    def create_launch_template(
        self, name: str, description: str, template_data: Any, tag_spec: Any
    ) -> LocalTemplate:
        """As moto's, which puts the template's own tags among those of its instances."""
        if not re.fullmatch(r"[A-Za-z0-9().\-/_]{3,128}", name or ""):
            raise EC2ClientError(
                "InvalidLaunchTemplateName.MalformedException",
                "A launch template name must be between 3 and 128 characters, and may contain letters, "
                "numbers, and the following characters: - ( ) . / _.",
            )
        if name in self.launch_template_name_to_ids:
            raise EC2ClientError(
                "InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use."
            )
        tags = template_data.get("TagSpecifications", [])
        template_data["TagSpecifications"] = [one for one in tags if one.get("ResourceType") != _TEMPLATE_TAG]
        if not template_data["TagSpecifications"]:
            del template_data["TagSpecifications"]
        template = LocalTemplate(self, name, template_data, _checked(description), tag_spec)
        self.launch_templates[template.id] = template
        self.launch_template_name_to_ids[name] = template.id
        self.launch_template_insert_order.append(template.id)
        return template


def _checked(description: str | None) -> Any:
    if len(description or "") > 255:
        raise invalid(str(description), "versionDescription", "At most 255 characters are taken.")
    return description


def _named(get: Any) -> dict[str, str]:
    """What names the template in a call."""
    names = ("LaunchTemplateId", "LaunchTemplateName")
    return {name: value for name in names if (value := get(name))}


def _told(version: Any, *, resolve: bool = False, backend: Any = None) -> dict[str, Any]:
    """A version as the answers have it; with `resolve`, an alias in it is the AMI that it means now."""
    template, data = version.template, dict(version.data)
    image = data.get("ImageId") or ""
    if resolve and image.startswith(BY_PARAMETER):
        data["ImageId"] = image_in_parameter(image.removeprefix(BY_PARAMETER), backend)
    return {
        "CreateTime": version.create_time,
        "CreatedBy": version.created_by,
        "DefaultVersion": template.is_default(version),
        "LaunchTemplateData": data,
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "VersionDescription": version.description,
        "VersionNumber": version.number,
    }


def _create_version(backend: Any, get: Any) -> dict[str, Any]:
    template = find(_named(get), backend)
    description = _checked(get("VersionDescription"))
    version = template.create_version(get("LaunchTemplateData", {}), description)
    return {"LaunchTemplateVersion": _told(version, resolve=bool(get("ResolveAlias")), backend=backend)}


def _describe_versions(backend: Any, get: Any) -> dict[str, Any]:
    asked, named = list(dict.fromkeys(get("Versions", []))), _named(get)
    if not named:
        if not asked or set(asked) - set(_ALIASES) or get("MinVersion") or get("MaxVersion"):
            raise EC2ClientError("InvalidParameterValue" if asked else "MissingParameter", _WHICH)
        templates = list(backend.launch_templates.values())
        found = [one for template in templates for one in _of(template, asked)]
    else:
        found = _of(find(named, backend), asked, int(get("MinVersion") or 0), int(get("MaxVersion") or 0))
    filters = {one["Name"]: one.get("Values", []) for one in get("Filters", [])}
    resolve = bool(get("ResolveAlias"))
    chosen = generic_filter(filters, found)
    return {"LaunchTemplateVersions": [_told(one, resolve=resolve, backend=backend) for one in chosen]}


def _of(template: Any, asked: list[str], low: int = 0, high: int = 0) -> list[Any]:
    """The versions of a template that are asked for, the newest first, each once."""
    if asked and (low or high):
        raise EC2ClientError(
            "InvalidParameterCombination", "Name versions, or the least and the largest version: not both."
        )
    numbers = {version_of(template, one).number for one in asked}
    found: Iterable[Any] = (
        one
        for one in template.versions
        if (not asked or one.number in numbers) and low <= one.number <= (high or one.number)
    )
    return sorted(found, key=lambda one: -int(one.number))


def _delete_versions(backend: Any, get: Any) -> dict[str, Any]:
    """Delete versions, and tell of each whether it is gone; the default version stays."""
    template, asked = find(_named(get), backend), list(dict.fromkeys(get("Versions", [])))
    if len(asked) > _AT_MOST:
        raise invalid(str(len(asked)), "launchTemplateVersion", f"At most {_AT_MOST} versions are taken.")
    for one in asked:
        if not re.fullmatch(r"[0-9]{1,9}", one):
            raise invalid(one, "launchTemplateVersion", "Expecting an integer.")
    deleted, kept = [], []
    for number in map(int, asked):
        told = {
            "LaunchTemplateId": template.id,
            "LaunchTemplateName": template.name,
            "VersionNumber": number,
        }
        if problem := _undeletable(template, number):
            kept.append({**told, "ResponseError": problem})
        else:
            template.versions = [one for one in template.versions if one.number != number]
            deleted.append(told)
    return {
        "SuccessfullyDeletedLaunchTemplateVersions": deleted,
        "UnsuccessfullyDeletedLaunchTemplateVersions": kept,
    }


def _undeletable(template: Any, number: int) -> dict[str, str] | None:
    if number not in [one.number for one in template.versions]:
        return {
            "Code": "launchTemplateVersionDoesNotExist",
            "Message": f"The version {number} of the launch template {template.id} does not exist.",
        }
    if number == template.default_version_number:
        return {
            "Code": "unexpectedError",
            "Message": f"The version {number} is the default version of the launch template {template.id}.",
        }
    return None


_ANSWERS: Mapping[str, Any] = {
    "create_launch_template_version": _create_version,
    "describe_launch_template_versions": _describe_versions,
    "delete_launch_template_versions": _delete_versions,
}


def install() -> None:
    """Give moto's response layer these answers; to be called before the first request."""
    response_layer.install(_ANSWERS)
