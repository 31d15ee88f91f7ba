"""Where an image comes from, and what points at it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-ancestry.html,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-ami-references.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ssm.models import ssm_backends

from bake.localcloud.api import response_layer
from bake.localcloud.api.images import LocalAmi
from bake.localcloud.api.parameter_store import IMAGE
from bake.localcloud.api.parameters import invalid
from bake.localcloud.api.snapshot_calls import region_of

_LONGEST = 50  # entries of an ancestry
_IMAGES = 10  # that one call asks about
_DEPTH, _DEEPEST = 10, 10_000  # versions of a template: the newest ones
_STATES = ("pending", "running", "shutting-down", "terminated", "stopping", "stopped")
_ALL = ("ec2:Instance", "ec2:LaunchTemplate", "ssm:Parameter")
# By type of resource: its one option. Image Builder's are known, and the local cloud has none of them.
_OPTIONS: Mapping[str, str] = {"ec2:Instance": "state-name", "ec2:LaunchTemplate": "version-depth"}
_KNOWN = {*_ALL, "imagebuilder:ImageRecipe", "imagebuilder:ContainerRecipe"}
Options = Mapping[str, list[str]]


class ImageRelations(EC2Backend):  # type: ignore[misc]
    """The relations of a region's images, for its backend."""

    departed: dict[str, dict[str, Any]]
    """The ancestry's entries of images that are deregistered, which their children outlive."""

    def remember(self, image: LocalAmi) -> None:
        """Keep what an image's children tell of it."""
        self.departed[image.id] = _entry(image)

    def ancestry(self, ami_id: str) -> list[dict[str, Any]]:
        """An image and its ancestors, back to one of Amazon's or one that nothing is known before."""
        found = [_entry(self.known_image(ami_id))]
        while len(found) < _LONGEST:
            last = found[-1]
            if last["ImageOwnerAlias"] or not last["SourceImageId"]:
                break
            region = region_of(self, last["SourceImageRegion"])
            source = region.amis.get(last["SourceImageId"])
            entry = _entry(source) if source is not None else region.departed.get(last["SourceImageId"])
            if entry is None:
                break
            found.append(entry)
        return found

    def references_of(self, images: set[str], kind: str, options: Options) -> Iterator[tuple[str, str]]:
        """The images that resources of a kind point at, each with the resource's ARN."""
        if kind == "ec2:Instance":
            states = options.get("state-name") or _STATES
            for one in self.all_instances():
                if one.image_id in images and one._state.name in states:
                    yield one.image_id, self._arn("ec2", f"instance/{one.id}")
        elif kind == "ec2:LaunchTemplate":
            depth = int((options.get("version-depth") or [str(_DEPTH)])[0])
            for template in list(self.launch_templates.values()):
                for image in dict.fromkeys(one.image_id for one in template.versions[-depth:]):
                    if image in images:
                        yield image, self._arn("ec2", f"launch-template/{template.id}")
        elif kind == "ssm:Parameter":
            for versions in list(ssm_backends[self.account_id][self.region_name]._parameters.values()):
                if versions and versions[-1].data_type == IMAGE and versions[-1].value in images:
                    name = versions[-1].name.lstrip("/")
                    yield versions[-1].value, self._arn("ssm", f"parameter/{name}")

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region_name}:{self.account_id}:{resource}"


def _entry(image: LocalAmi) -> dict[str, Any]:
    return {
        "CreationDate": image.creation_date,
        "ImageId": image.id,
        "ImageOwnerAlias": image.owner_alias,
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_image_region,
    }


def _described(backend: Any, get: Any) -> dict[str, Any]:
    images, kinds = get("ImageIds", []), _kinds(get)
    if len(images) > _IMAGES:
        raise invalid(str(len(images)), "imageId", f"At most {_IMAGES} images are taken.")
    found = [
        {"ImageId": image, "ResourceType": kind, "Arn": arn}
        for kind, options in kinds.items()
        for image, arn in backend.references_of(set(images), kind, options)
    ]
    return {"ImageReferences": sorted(found, key=lambda one: (images.index(one["ImageId"]), one["Arn"]))}


def _kinds(get: Any) -> dict[str, Options]:
    """The types of resources that a call asks for, with the options that it gives."""
    asked, every = get("ResourceTypes", []), get("IncludeAllResourceTypes")
    if not asked and not every:
        raise EC2ClientError(
            "MissingParameter",
            "The request must contain the parameter IncludeAllResourceTypes or ResourceTypes",
        )
    found: dict[str, Options] = {kind: {} for kind in (_ALL if every else ())}
    for one in asked:
        kind = one.get("ResourceType")
        if kind not in _KNOWN:
            raise invalid(str(kind), "resourceType")
        found[kind] = options_of(kind, one.get("ResourceTypeOptions") or [])
    return found


def options_of(kind: str, given: list[Any]) -> Options:
    """The options of a type of resource; EC2ClientError for what it has not, or cannot be."""
    found = {str(one.get("OptionName")): list(one.get("OptionValues") or ()) for one in given}
    for name, values in found.items():
        if name != _OPTIONS.get(kind):
            raise EC2ClientError(
                "InvalidParameterCombination", f"The option '{name[:60]}' is not one of the type {kind}"
            )
        wrong = [one for one in values if not _valid(name, one)]
        if wrong or not values or (name == "version-depth" and len(values) > 1):
            raise invalid(",".join(wrong or values), name)
    return found


def _valid(option: str, value: str) -> bool:
    if option == "state-name":
        return value in _STATES
    return value.isascii() and value.isdigit() and 1 <= int(value) <= _DEEPEST


def install() -> None:
    """Give moto's response layer the calls; to be called before the first request."""
    response_layer.install(
        {
            "get_image_ancestry": lambda backend, get: {
                "ImageAncestryEntries": backend.ancestry(get("ImageId"))
            },
            "describe_image_references": _described,
        }
    )
