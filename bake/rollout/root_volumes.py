"""Whether AWS can replace the root volumes of a group's instances, and keep the instances.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/replace-root-volume.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateReplaceRootVolumeTask.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bake.rollout.groups import Group
from bake.rollout.target import Target

# What an AMI must have in common with the one that an instance runs: how it is billed, and what it runs on.
ALIKE = {
    "Architecture": "architecture",
    "VirtualizationType": "virtualization type",
    "UsageOperation": "billing",
    "PlatformDetails": "platform",
}


def problems(group: Group, target: Target) -> Iterator[str]:
    """Why not, of what DescribeAutoScalingGroups and the template tell; nothing if AWS should do it."""
    if not group.policy:
        yield "it has no mixed instances policy, without which AWS replaces no root volumes"
        return
    missing = [str(one.get("InstanceType") or "requirements") for one in group.overrides if not _image(one)]
    if missing or not group.overrides:
        yield (
            f"its overrides have no ImageId ({', '.join(missing) or 'there are none'}): AWS replaces root "
            "volumes where each override names an AMI: add it to all, or leave out --replace-root-volume"
        )
    if (count := volumes(target.facts)) != 1:
        yield f"{target.image} has {count} volumes, and AWS replaces root volumes by AMIs with one"
    yield from _of_settings(group, target)
    yield from _of_instances(group)


def of_images(present: Mapping[str, Any] | None, image: str, target: Target) -> Iterator[str]:
    """What keeps the target's AMI from replacing a present one's volume; `present` is None if it is gone."""
    if present is None:
        yield f"{image}, which it launches now, does not exist any more: AWS could not roll back to it"
        return
    if (count := volumes(present)) != 1:
        yield f"{image}, which it launches now, has {count} volumes: AWS would not roll back to it"
    for name, what in ALIKE.items():
        before, after = present.get(name), target.facts.get(name)
        if before != after:
            yield f"{image} and {target.image} differ in their {what}: {before} and {after}"
    if _codes(present) != _codes(target.facts):
        yield f"{image} and {target.image} have different product codes"


def images(group: Group) -> list[str]:
    """The AMIs of the group's overrides, each once."""
    return list(dict.fromkeys(found for one in group.overrides if (found := _image(one))))


def volumes(facts: Mapping[str, Any]) -> int:
    """How many EBS volumes an AMI makes; instance stores are none."""
    return sum("Ebs" in one for one in facts.get("BlockDeviceMappings", []))


def _image(override: Mapping[str, Any]) -> str:
    return str(override.get("ImageId") or "")


def _of_settings(group: Group, target: Target) -> Iterator[str]:
    """A running instance keeps its settings, so that only the AMI may be another one."""
    if not group.version.isdecimal():
        yield (
            f"it launches by the version {group.version} of its template: instances must match what it "
            "launches, so roll out once without --replace-root-volume"
        )
        return
    now = target.named(group.version)
    if now is None:
        yield f"version {group.version} of {target.version.template}, which it launches by, is not there"
        return
    names = {*now.data, *target.version.data} - {"ImageId"}
    other = sorted(one for one in names if now.data.get(one) != target.version.data.get(one))
    if other:
        yield (
            f"versions {now.number} and {target.version.number} of {target.version.template} differ in "
            f"{', '.join(other)}, which instances that are kept do not get: leave out --replace-root-volume"
        )


def _of_instances(group: Group) -> Iterator[str]:
    wanted = group.specification.get("LaunchTemplateId"), group.version
    other = [
        str(one["InstanceId"])
        for one in group.instances
        if (
            (one.get("LaunchTemplate") or {}).get("LaunchTemplateId"),
            (one.get("LaunchTemplate") or {}).get("Version"),
        )
        != wanted
    ]
    if other and group.version.isdecimal():
        yield (
            f"{', '.join(other)} {'was' if len(other) == 1 else 'were'} not launched by version "
            f"{group.version}, which the group launches now: AWS needs that; roll out once without "
            "--replace-root-volume"
        )


def _codes(facts: Mapping[str, Any]) -> list[str]:
    return sorted(str(one.get("ProductCodeId")) for one in facts.get("ProductCodes") or [])
