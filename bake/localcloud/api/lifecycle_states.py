"""Instances in the transitions of Auto Scaling groups, as told by whoever stands for Auto Scaling.

The local cloud launches and ends no instance for a group. Who does tells the state of each over the control
socket, and what the instance sees follows: its metadata (autoscaling/target-lifecycle-state),
DescribeAutoScalingInstances, and CompleteLifecycleAction, which ends a wait. No hook runs out of time.
https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import autoscaling_backends
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import EmptyResult

from bake.errors import UsageError
from bake.localcloud.network.control import Routes
from bake.localcloud.settings import ACCOUNT, SPOT_REGION

ROUTE = "/-/lifecycle-states"
IN_SERVICE, PENDING, TERMINATING = "InService", "Pending:Wait", "Terminating:Wait"
# By the state that waits: the transition whose hooks are waited for, and the state after them.
_WAITS = {
    PENDING: ("autoscaling:EC2_INSTANCE_LAUNCHING", "Pending:Proceed"),
    TERMINATING: ("autoscaling:EC2_INSTANCE_TERMINATING", "Terminating:Proceed"),
}


@dataclass
class Member:
    """An instance of a group: its state, and the names of the hooks that it waits for."""

    group: str
    state: str
    hooks: set[str] = field(default_factory=set)

    @property
    def target(self) -> str:
        """The state that the instance is on its way to, as its metadata have it."""
        return "Terminated" if self.state.startswith("Terminating") else IN_SERVICE

    def told(self, instance: Any) -> dict[str, Any]:
        """An entry of DescribeAutoScalingInstances."""
        return {
            "AutoScalingGroupName": self.group,
            "AvailabilityZone": instance.availability_zone,
            "HealthStatus": "HEALTHY",
            "InstanceId": instance.id,
            "InstanceType": instance.instance_type,
            "LifecycleState": self.state,
            "ProtectedFromScaleIn": False,
        }


class LifecycleStates:
    """The part of a region's Auto Scaling that knows the groups' instances."""

    ec2_backend: Any
    _known: Callable[[str], Any]
    describe_lifecycle_hooks: Callable[..., list[Any]]

    @property
    def members(self) -> dict[str, Member]:
        """The groups' instances, by id. A cloud that was saved before there were any has none."""
        found: dict[str, Member] = self.__dict__.setdefault("_members", {})
        return found

    def move(self, group: str, identity: str, state: str) -> Member:
        """Put an instance into a state; it waits for the hooks of that transition, if the group has any."""
        self._known(group)
        transition, after = _WAITS.get(state, ("", ""))
        hooks = {
            hook.name
            for hook in self.describe_lifecycle_hooks(group)
            if hook.lifecycle_transition == transition
        }
        member = Member(group, state if hooks or not after else after, hooks)
        self.members[identity] = member
        return member

    def describe_auto_scaling_instances(self, instance_ids: list[str]) -> list[dict[str, Any]]:
        """The instances of groups; one that is terminated is of none any more."""
        there = {one.id: one for one in self.ec2_backend.all_instances() if one.state != "terminated"}
        return [
            member.told(there[identity])
            for identity, member in list(self.members.items())
            if identity in there and identity in (instance_ids or there)
        ]

    def create_lifecycle_hook(self, name: str, as_name: str, transition: str, **asked: Any) -> Any:
        """As moto's, which takes hooks of any group and transition."""
        self._known(as_name)
        if transition not in {one for one, _ in _WAITS.values()}:
            raise ValidationError(f"Invalid lifecycle transition {str(transition)[:100]}")
        return super().create_lifecycle_hook(  # type: ignore[misc]
            name=name, as_name=as_name, transition=transition, **asked
        )

    def complete_lifecycle_action(self, group: str, hook: str, identity: str, result: str) -> None:
        """End an instance's wait for one hook."""
        self._known(group)
        member = self.members.get(identity)
        if member is None or member.group != group or hook not in member.hooks:
            raise ValidationError(f"No active Lifecycle Action found with instance ID {identity[:40]}")
        if result == "ABANDON" and member.state == PENDING:
            raise NotImplementedError("a launch that is abandoned: nothing here would end the instance")
        if result not in {"CONTINUE", "ABANDON"}:
            raise ValidationError("Lifecycle action result must be one of: CONTINUE, ABANDON")
        member.hooks.discard(hook)
        if not member.hooks:
            member.state = _WAITS[member.state][1]


def target_of(identity: str) -> str | None:
    """What an instance's metadata have as autoscaling/target-lifecycle-state; None for one in no group."""
    member = autoscaling_backends[ACCOUNT][SPOT_REGION].members.get(identity)
    return member.target if member else None


def install() -> None:
    """Give moto's response layer the call that it lacks; to be called before the first request."""

    def complete(self: Any) -> EmptyResult:
        names = ("AutoScalingGroupName", "LifecycleHookName", "InstanceId", "LifecycleActionResult")
        self.autoscaling_backend.complete_lifecycle_action(*(self._get_param(one) or "" for one in names))
        return EmptyResult()

    AutoScalingResponse.complete_lifecycle_action = complete


def routes() -> Routes:
    """The control route, which whoever stands for Auto Scaling calls."""

    def move(request: Any) -> dict[str, str]:
        group, identity, state = (request.args.get(name, "") for name in ("group", "instance", "state"))
        backend = autoscaling_backends[ACCOUNT][SPOT_REGION]
        if state not in {IN_SERVICE, *_WAITS}:
            raise UsageError(f"{state[:40]} is no state to put an instance into", hint=", ".join(_WAITS))
        if group not in backend.autoscaling_groups:
            raise UsageError(f"there is no Auto Scaling group {group[:100]}")
        if identity not in {one.id for one in backend.ec2_backend.all_instances()}:
            raise UsageError(f"there is no instance {identity[:40]}", hint="bake local status")
        return {"state": backend.move(group, identity, state).state}

    return {("POST", ROUTE): move}
