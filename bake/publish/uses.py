"""What would launch an AMI in a region: SSM parameters, channels among them, launch templates, groups.

Instances that run are no such use: they go on without their AMI.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
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
    """All that would launch an AMI from now on; `known` are the channels of profiles, for their names."""
    named = {one.parameter: one for one in known}
    holding = _holding(aws, image, named)
    told = {image, *(f"{BY_PARAMETER}{name}" for name in holding)}
    parameters = [Use(_named(name, named.get(name)), "whatever is launched by it fails") for name in holding]
    return [*parameters, *_templates(aws, told), *_Groups(aws, told).uses()]


def _holding(aws: Aws, image: str, named: Iterable[str]) -> list[str]:
    """The parameters that hold the AMI: those of known channels, and all that AWS knows to hold one."""
    there = {name for name, one in channels.held(aws, named).items() if one.value == image}
    kinds: Any = [{"ResourceType": "ssm:Parameter"}]
    pages = aws.ec2.get_paginator("describe_image_references")
    for page in pages.paginate(ImageIds=[image], ResourceTypes=kinds):
        there |= {str(one["Arn"]).partition(ARN)[2] for one in page["ImageReferences"]}
    return sorted(there)


def _named(parameter: str, channel: Channel | None) -> str:
    if channel is None:
        return f"SSM parameter {parameter}"
    return f"the channel {channel.name} of {channel.profile} ({parameter})"


def _templates(aws: Aws, told: Collection[str]) -> Iterator[Use]:
    """Launch templates whose default version has the AMI, by its id or by a parameter that holds it."""
    pages = aws.ec2.get_paginator("describe_launch_template_versions")
    for page in pages.paginate(Versions=["$Default"]):
        for raw in page["LaunchTemplateVersions"]:
            if raw["LaunchTemplateData"].get("ImageId") in told:
                what = f"launch template {raw['LaunchTemplateId']} ({raw['LaunchTemplateName']})"
                yield Use(f"{what}, default version {raw['VersionNumber']}", "launches of its default fail")


@dataclass
class _Groups:
    """The Auto Scaling groups, and what they launch; `told` are the AMI's id, and parameters that hold it."""

    aws: Aws
    told: Collection[str]
    _seen: dict[str, list[launch_template.Version]] = field(default_factory=dict)

    def uses(self) -> Iterator[Use]:
        pages = self.aws.autoscaling.get_paginator("describe_auto_scaling_groups")
        for page in pages.paginate():
            for group in page["AutoScalingGroups"]:
                if how := next((how for how, image in self._launches(group) if image in self.told), None):
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
            wanted = {"$Default": one.default, "$Latest": one is known[-1]}.get(
                asked, str(one.number) == asked
            )
            if wanted:
                yield f"version {one.number} of {template}", one.image
