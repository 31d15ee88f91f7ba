"""Whether a group can be moved to what a channel serves. Pure: it judges what was asked before."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from bake.account.instance_types import InstanceType
from bake.creation import tag_of
from bake.publish.launch_template import BY_PARAMETER
from bake.rollout import root_volumes
from bake.rollout.desired import stale
from bake.rollout.groups import Group
from bake.rollout.preferences import ROLLING, ROOT_VOLUMES, Preferences, Strategy
from bake.rollout.target import Target

Types = Mapping[str, InstanceType]


def of_template(group: Group, target: Target) -> str:
    """Why the group can't go by the channel's template; empty if it does already."""
    if group.configuration:
        return (
            f"it goes by the launch configuration {group.configuration}: give it the launch template "
            f"{target.version.template} first (aws autoscaling update-auto-scaling-group)"
        )
    if (named := group.specification.get("LaunchTemplateId")) != target.version.template:
        return (
            f"it launches by {named or 'no launch template'}, and the channel {target.channel.name} by "
            f"{target.version.template}"
        )
    for override in group.overrides:
        own = (override.get("LaunchTemplateSpecification") or {}).get("LaunchTemplateId")
        if own not in (None, target.version.template):
            return (
                f"its override for {_kind(override)} launches by {own}, a template of its own, which the "
                f"channel {target.channel.name} does not serve"
            )
    return ""


def problems(
    group: Group, target: Target, preferences: Preferences, strategy: Strategy, types: Types
) -> Iterator[str]:
    """All that stands in the way of a refresh of a group that goes by the channel's template."""
    if preferences.rollback:
        yield from _of_rollback(group, target)
    yield from _of_types(group, target, types)
    if strategy == ROOT_VOLUMES:
        yield from root_volumes.problems(group, target)
    if group.suspended:
        yield (
            f"its processes {', '.join(group.suspended)} are suspended, without which nothing is replaced: "
            "aws autoscaling resume-processes lets them go on"
        )


def _of_rollback(group: Group, target: Target) -> Iterator[str]:
    """AWS rolls back to a version by its number and an AMI by its id, and to nothing else.

    https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html
    """
    for version in group.versions:
        if not version.isdecimal():
            yield (
                f"it launches by the version {version} of its template, to which AWS does not roll back; "
                "--no-rollback goes without that once, and leaves the group with a number"
            )
        elif (there := target.named(version)) and there.image.startswith(BY_PARAMETER):
            yield (
                f"version {version} of its template takes its AMI from {there.image}, to which AWS does not "
                "roll back; --no-rollback goes without that once, and leaves the group with an AMI's id"
            )


def _of_types(group: Group, target: Target, types: Types) -> Iterator[str]:
    """Instance types that the AMI does not run on: by EC2's facts of both, and by what the AMI enforces."""
    accelerator = tag_of(target.facts.get("Tags"), "bake:accelerator")
    architecture = str(target.facts.get("Architecture", ""))
    supported = _patterns(target, "SupportedInstanceTypes")
    refused = _patterns(target, "UnsupportedInstanceTypes")
    for name in group.types(str(target.version.data.get("InstanceType", ""))):
        if (supported and not _matches(name, supported)) or _matches(name, refused):
            yield f"{target.image} is not for {name}: the AMI's own instance types say so"
        if (kind := types.get(name)) is None:
            continue
        if architecture and architecture not in kind.architectures:
            yield f"{name} is {' or '.join(kind.architectures)}, and {target.image} {architecture}"
        has = kind.device.kind if kind.device else "no accelerator"
        if accelerator and has != accelerator:
            yield f"{name} has {has}, and {target.image} was baked for {accelerator}"


def _patterns(target: Target, of: str) -> list[str]:
    found = target.facts.get("InstanceTypeSpecification") or {}
    return [str(one["InstanceType"]) for one in found.get(of) or []]


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, one) for one in patterns)


def notes(group: Group, target: Target, preferences: Preferences, types: Types) -> Iterator[str]:
    """What is no fault, and good to know."""
    if not group.desired and not group.instances:
        yield "it has no instances: nothing is replaced, and it launches the new version from then on"
    for some, what, option in _kept(group, target, preferences):
        whom = "it" if len(some) == 1 else "them"
        yield f"{_named(some)} {what}: kept, with the old AMI ({option} replaces {whom})"
    unknown = [name for name in group.types() if name not in types]
    if unknown:
        yield f"{', '.join(unknown)}: EC2 does not offer it in this region"
    if any(one.get("InstanceRequirements") for one in group.overrides):
        yield "its overrides name requirements and no types: whether the AMI fits them is not looked at"


def counts(group: Group, target: Target, preferences: Preferences, strategy: Strategy) -> str:
    """How many instances there are, and how many of them are replaced."""
    kept = sum(len(some) for some, _, _ in _kept(group, target, preferences))
    what = "" if strategy == ROLLING else "with root volumes "
    left = len(list(stale(group, target))) if preferences.skip_matching else len(group.instances)
    return f"{len(group.instances)}, {what}to be replaced: {left - kept}"


def _kept(
    group: Group, target: Target, preferences: Preferences
) -> Iterator[tuple[list[Mapping[str, Any]], str, str]]:
    """Instances with another AMI that are left alone: what they are, and the option that replaces them."""
    old = list(stale(group, target))
    waiting = [one for one in old if str(one.get("LifecycleState")) == "Standby"]
    protected = [one for one in old if one.get("ProtectedFromScaleIn") and one not in waiting]
    if protected and preferences.protected == "Ignore":
        yield protected, "protected from scale-in", "--protected refresh"
    if waiting and preferences.standby == "Ignore":
        yield waiting, "in Standby", "--standby terminate"


def _named(instances: list[Mapping[str, Any]]) -> str:
    names = [str(one["InstanceId"]) for one in instances]
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _kind(override: Mapping[str, Any]) -> str:
    return str(override.get("InstanceType") or "its instance requirements")
