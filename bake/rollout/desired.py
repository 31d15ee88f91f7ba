"""What a group is to have: its own configuration with the version and the AMI that a channel serves. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from bake.rollout.groups import Group
from bake.rollout.preferences import ROLLING, Strategy
from bake.rollout.target import Target

# A template's version without its AMI, and the AMI that is launched.
Launch = tuple[Mapping[str, Any], str]


def configuration(group: Group, target: Target, strategy: Strategy) -> dict[str, Any]:
    """The DesiredConfiguration: all of the group's policy, with literal versions and the AMI's id.

    Where root volumes are replaced, the version stays: instances must match it, and the overrides' AMI goes
    before the template's own.
    """
    version = str(target.version.number) if strategy == ROLLING else group.version
    named = {"LaunchTemplateId": target.version.template, "Version": version}
    if not group.policy:
        return {"LaunchTemplate": named}
    policy: dict[str, Any] = copy.deepcopy(dict(group.policy))
    mixed = policy["LaunchTemplate"]
    mixed["LaunchTemplateSpecification"] = dict(named)
    for override in mixed.get("Overrides") or []:
        if override.get("LaunchTemplateSpecification"):
            own = override["LaunchTemplateSpecification"].get("Version")
            override["LaunchTemplateSpecification"] = {
                **named,
                **({} if strategy == ROLLING else {"Version": str(own)}),
            }
        if override.get("ImageId"):
            override["ImageId"] = target.image
    if not mixed.get("Overrides"):
        mixed.pop("Overrides", None)
    return {"MixedInstancesPolicy": policy}


def launches(policy: Mapping[str, Any], plain: Mapping[str, Any], target: Target) -> list[Launch | None]:
    """What each part of a configuration launches, by the template's versions; None where one is not there."""
    mixed = policy.get("LaunchTemplate") or {}
    base = mixed.get("LaunchTemplateSpecification") or plain
    parts = [(one.get("LaunchTemplateSpecification") or base, one) for one in mixed.get("Overrides") or []]
    return [_launch(named, str(one.get("ImageId") or ""), target) for named, one in parts or [(base, {})]]


def is_there(group: Group, desired: Mapping[str, Any], target: Target) -> bool:
    """Whether the group launches just what it is to launch, by numbers, and all of its instances run it."""
    if not all(one.isdecimal() for one in group.versions):
        return False
    wanted = launches(desired.get("MixedInstancesPolicy") or {}, desired.get("LaunchTemplate") or {}, target)
    return launches(group.policy, group.specification, target) == wanted and not list(stale(group, target))


def stale(group: Group, target: Target) -> Iterator[Mapping[str, Any]]:
    """The instances of the group that run another AMI, or were launched with other settings."""
    wanted = _launch({"Version": str(target.version.number)}, "", target)
    for instance in group.instances:
        named = instance.get("LaunchTemplate") or {}
        ours = named.get("LaunchTemplateId") == target.version.template
        if not ours or _launch(named, str(instance.get("ImageId") or ""), target) != wanted:
            yield instance


def _launch(named: Mapping[str, Any], image: str, target: Target) -> Launch | None:
    version = target.named(str(named.get("Version") or "$Default"))
    if version is None:
        return None
    return {name: value for name, value in version.data.items() if name != "ImageId"}, image or version.image
