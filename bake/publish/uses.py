"""What would launch an AMI in a region: channels and other SSM parameters, launch templates, Auto Scaling groups.

Instances that run are no such use: they go on without their AMI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bake.aws import Aws
from bake.publish import channels, launch_template
from bake.publish.channels import Channel
from bake.publish.launch_template import BY_PARAMETER

ARN = ":parameter"


@dataclass(frozen=True)
class Use:
    """One thing that would launch the AMI: what it is, and what becomes of it without the AMI."""

    what: str
    breaks: str

    def __str__(self) -> str:
        return f"{self.what}: {self.breaks}"


def uses(aws: Aws, image: str, known: Iterable[Channel] = ()) -> list[Use]:
    """All that would launch an AMI from now on; `known` are the channels of profiles here, for their names."""
    return [
        *_parameters(aws, image, known),
        *_templates(aws, image),
        *_Groups(aws, image).uses(),
    ]


def _parameters(aws: Aws, image: str, known: Iterable[Channel]) -> Iterator[Use]:
    """Parameters that hold the AMI: those of known channels, and all others that AWS knows to hold one."""
    named = {one.parameter: one for one in known}
    there = {name for name, one in channels.held(aws, named).items() if one.value == image}
    kinds: Any = [{"ResourceType": "ssm:Parameter"}]
    pages = aws.ec2.get_paginator("describe_image_references")
    for page in pages.paginate(ImageIds=[image], ResourceTypes=kinds):
        there |= {str(one["Arn"]).partition(ARN)[2] for one in page["ImageReferences"]}
    for name in sorted(there):
        channel = named.get(name)
        what = f"the channel {channel.name} of {channel.profile} ({name})" if channel else f"SSM parameter {name}"
        yield Use(what, "whatever is launched by it fails")


def _templates(aws: Aws, image: str) -> Iterator[Use]:
    """Launch templates whose default version has the AMI."""
    pages = aws.ec2.get_paginator("describe_launch_template_versions")
    for page in pages.paginate(Versions=["$Default"]):
        for raw in page["LaunchTemplateVersions"]:
            if raw["LaunchTemplateData"].get("ImageId") == image:
                what = f"launch template {raw['LaunchTemplateId']} ({raw['LaunchTemplateName']})"
                yield Use(f"{what}, default version {raw['VersionNumber']}", "launches of its default fail")


@dataclass
class _Groups:
    """The Auto Scaling groups, and what they launch, each template asked for once."""

    aws: Aws
    image: str
    _seen: dict[str, list[launch_template.Version]] = field(default_factory=dict)

    def uses(self) -> Iterator[Use]:
        pages = self.aws.autoscaling.get_paginator("describe_auto_scaling_groups")
        for page in pages.paginate():
            for group in page["AutoScalingGroups"]:
                if how := next((how for how, image in self._launches(group) if self._is_it(image)), None):
                    what = f"Auto Scaling group {group['AutoScalingGroupName']}, by {how}"
                    yield Use(what, "it replaces no instance and grows no more")

    def _launches(self, group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Each way in which a group launches, and the AMI: its template, overrides, launch configuration."""
        if name := group.get("LaunchConfigurationName"):
            asked = self.aws.autoscaling.describe_launch_configurations(LaunchConfigurationNames=[name])
            for one in asked["LaunchConfigurations"]:
                yield f"launch configuration {name}", str(one.get("ImageId", ""))
        mixed = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
        specifications = [group.get("LaunchTemplate"), mixed.get("LaunchTemplateSpecification")]
        for override in mixed.get("Overrides", []):
            specifications.append(override.get("LaunchTemplateSpecification"))
            if found := override.get("ImageId"):
                yield f"an override for {override.get('InstanceType', 'its instances')}", str(found)
        for one in filter(None, specifications):
            yield from self._of_template(one)

    def _of_template(self, named: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        template, asked = named.get("LaunchTemplateId", ""), named.get("Version") or "$Default"
        if template not in self._seen:
            self._seen[template] = launch_template.versions(self.aws, template) or []
        known = self._seen[template]
        for one in known:
            wanted = {"$Default": one.default, "$Latest": one is known[-1]}.get(asked, str(one.number) == asked)
            if wanted:
                yield f"version {one.number} of {template}", one.image

    def _is_it(self, image: str) -> bool:
        """Whether this is the AMI, by its id or by a parameter that holds it."""
        if image.startswith(BY_PARAMETER):
            return channels.read(self.aws, image.removeprefix(BY_PARAMETER)).value == self.image
        return image == self.image
