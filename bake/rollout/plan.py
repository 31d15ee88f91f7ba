"""Look at a channel and a group, and plan the refresh between them; nothing is changed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bake.account.instance_types import InstanceType, ask_named
from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.image import describe_image
from bake.publish.channels import Channel
from bake.rollout import desired, groups, judge, refreshes, root_volumes, target
from bake.rollout.groups import Group
from bake.rollout.preferences import ROOT_VOLUMES, Preferences, Strategy
from bake.rollout.refreshes import Refresh
from bake.rollout.target import Target


@dataclass(frozen=True)
class Rollout:
    """A refresh to be started: `request` is all of StartInstanceRefresh. With `is_there` none is needed."""

    group: Group
    target: Target
    strategy: Strategy
    request: Mapping[str, Any]
    is_there: bool
    instances: str
    notes: tuple[str, ...]

    @property
    def before(self) -> str:
        """What the group launches now, in words: a version, and the AMI."""
        launched = [
            image
            for one in desired.launches(self.group.policy, self.group.specification, self.target)
            if one is not None and (image := one[1])
        ]
        images = " and ".join(dict.fromkeys(launched)) or "an AMI that is not known"
        return f"version {self.group.version} with {images}"

    @property
    def after(self) -> str:
        """What it launches then."""
        policy = self.request["DesiredConfiguration"].get("MixedInstancesPolicy")
        plain = self.request["DesiredConfiguration"].get("LaunchTemplate")
        named = policy["LaunchTemplate"]["LaunchTemplateSpecification"] if policy else plain
        return f"version {named['Version']} with {self.target.image}"

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            "asg": self.group.name,
            "image": self.target.image,
            "launch_template": self.target.version.template,
            "version": self.target.version.number,
            "before": self.before,
            "after": self.after,
            "instances": len(self.group.instances),
            "is_there": self.is_there,
            "notes": list(self.notes),
            "request": dict(self.request),
        }


def plan(
    aws: Aws, channel: Channel, name: str, venue: str, preferences: Preferences, strategy: Strategy
) -> Rollout:
    """The refresh that gives a group what a channel serves.

    Raises UsageError with all that stands in its way, and BakeError while another refresh goes on.
    """
    preferences.check()
    group, served = groups.describe(aws, name), target.find(aws, channel, venue)
    if why := judge.of_template(group, served):
        raise _refused(group, served, [why])
    types = _types(aws, group, served)
    found = [*judge.problems(group, served, preferences, strategy, types)]
    if strategy == ROOT_VOLUMES:
        found += _of_images(aws, group, served)
    if found:
        raise _refused(group, served, found)
    wanted = desired.configuration(group, served, strategy)
    if (going := refreshes.active(aws, name)) is not None:
        raise in_the_way(group, served, going)
    return Rollout(
        group,
        served,
        strategy,
        {
            "AutoScalingGroupName": name,
            "Strategy": strategy,
            "DesiredConfiguration": wanted,
            "Preferences": preferences.request(group, strategy),
        },
        desired.is_there(group, wanted, served),
        judge.counts(group, served, preferences, strategy),
        tuple(judge.notes(group, served, preferences, types)),
    )


def in_the_way(group: Group, served: Target, going: Refresh) -> BakeError:
    """What to say while another refresh goes on."""
    return BakeError(
        f"a refresh of {group.name} goes on, {going.id}: {going.line}; nothing was changed",
        hint="\n".join(commands(served.channel.profile, group.name)),
    )


def commands(profile: str, group: str) -> list[str]:
    """How to follow, cancel and roll back the refresh of a group that goes on."""
    base = shlex.join(["bake", "rollout", "--profile", profile, "--asg", group])
    return [
        f"follow it:    {base} --status --wait",
        f"cancel it:    {base} --cancel       (what it replaced stays)",
        f"roll it back: {base} --roll-back",
    ]


def _refused(group: Group, served: Target, problems: list[str]) -> UsageError:
    listed = problems[0] if len(problems) == 1 else "".join(f"\n  {one}" for one in problems)
    return UsageError(
        f"{group.name} is not moved to {served.image}: {listed}",
        hint="nothing was changed; docs/fleet.md tells what a group needs",
    )


def _types(aws: Aws, group: Group, served: Target) -> Mapping[str, InstanceType]:
    names = tuple(group.types(str(served.version.data.get("InstanceType", ""))))
    return ask_named(aws, names) if names else {}


def _of_images(aws: Aws, group: Group, served: Target) -> list[str]:
    """What the AMIs tell that the group launches now."""
    return [
        problem
        for image in root_volumes.images(group)
        if image != served.image
        for problem in root_volumes.of_images(describe_image(aws, image, disabled=True), image, served)
    ]
