"""The loop that stands for Auto Scaling, and for CloudWatch: one look of it is one minute of theirs.

It launches spot instances from the group's launch template as the group's policies say (policies.py), and
says their lifecycle states to the local cloud, so that workers complete the group's hooks. It knows nothing
else of Auto Scaling.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from botocore.exceptions import ClientError

from bake.localcloud import Settings, over_socket

from .counting import Count
from .policies import Decisions, Policies
from .resources import Clients
from .stack import Stack

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 900.0  # a busy host is ten times slower at times
GROUP = "AWS::AutoScaling::AutoScalingGroup"
_GONE = {"shutting-down", "terminated"}
_NOTICE = "marked-for-termination"
_CAPACITY = "InsufficientInstanceCapacity"
_SPOT = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}


class AutoScaling:
    """A group's instances: `states` has the lifecycle states of those that are there, by their ids.

    `desired` has each desired count that there was, `launched` the type of each instance, `served` those that
    came into service, and `lost` those that ended although nobody here had asked for it.
    """

    def __init__(self, stack: Stack, clients: Clients, count: Count) -> None:
        [(name, made)] = stack.of_type(GROUP).items()
        self.name, group = made.ref, stack.properties(name)
        self.policies = Policies.of(group, stack.read, {one: stack.ref(one) for one in stack.read})
        self._decisions = Decisions(self.policies)
        self._mixed = _all_spot(group["MixedInstancesPolicy"])
        assert group["CapacityRebalance"] is True
        self._subnet = group["VPCZoneIdentifier"][0]
        self._clients, self._count = clients, count
        self._tell_cloud = over_socket(Settings.load())
        self.backlog = 0
        self.states: dict[str, str] = {}
        self.desired = [self._decisions.desired]
        self.launched: dict[str, str] = {}
        self.served: set[str] = set()
        self.lost: list[str] = []
        self._leaving: set[str] = set()

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Look at the jobs and the instances, again and again, until the condition holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                seen = f"a backlog of {self.backlog}, {self.states}"
                raise AssertionError(f"waited {PATIENCE_SECONDS:.0f} s for {what}: {seen}")
            self.look()
            time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Do what Auto Scaling does in a minute."""
        self._follow()
        self.backlog = self._count()
        desired = self._decisions.minute(self.backlog)
        if desired != self.desired[-1]:
            self.desired.append(desired)
        staying = [one for one in self.states if one not in self._leaving]
        staying = [one for one in staying if not self.states[one].startswith("Terminating")]
        for _ in range(desired - len(staying)):
            self._launch()
        for one in staying[desired:]:
            self._move(one, "Terminating:Wait")

    def in_service(self) -> list[str]:
        """The instances that serve."""
        return [one for one, state in self.states.items() if state == "InService"]

    def terminate(self) -> None:
        """Terminate what is left of a loop that failed."""
        if self.states:
            self._clients("ec2").terminate_instances(InstanceIds=list(self.states))

    def _follow(self) -> None:
        """Note who is gone, let those serve who are ready, and end those who are done."""
        ec2, scaling = self._clients("ec2"), self._clients("autoscaling")
        found = ec2.describe_instances(InstanceIds=list(self.states))["Reservations"] if self.states else []
        alive = {one["InstanceId"]: one["State"]["Name"] for group in found for one in group["Instances"]}
        self._leaving |= self._noticed()
        for one in [one for one in self.states if alive[one] in _GONE]:
            if not self.states.pop(one).startswith("Terminating"):
                self.lost.append(one)
        if not self.states:
            return
        for entry in scaling.describe_auto_scaling_instances(InstanceIds=list(self.states))[
            "AutoScalingInstances"
        ]:
            one = entry["InstanceId"]
            self.states[one] = entry["LifecycleState"]
            if self.states[one] == "Pending:Proceed":
                self._move(one, "InService")
                self.served.add(one)
            elif self.states[one] == "Terminating:Proceed":
                ec2.terminate_instances(InstanceIds=[one])

    def _noticed(self) -> set[str]:
        """Instances that EC2 is about to take back: the group replaces them before they are gone."""
        told = self._clients("ec2").describe_spot_instance_requests()["SpotInstanceRequests"]
        return {one["InstanceId"] for one in told if one["Status"]["Code"] == _NOTICE} & set(self.states)

    def _launch(self) -> None:
        """Launch a spot instance from the template, of the first type that there is capacity for."""
        for override in self._mixed["Overrides"]:
            try:
                [instance] = self._clients("ec2").run_instances(
                    LaunchTemplate=self._mixed["LaunchTemplateSpecification"],
                    **override,
                    SubnetId=self._subnet,
                    InstanceMarketOptions=_SPOT,
                    MinCount=1,
                    MaxCount=1,
                )["Instances"]
            except ClientError as error:
                if error.response["Error"]["Code"] != _CAPACITY:
                    raise
            else:
                self.launched[instance["InstanceId"]] = override["InstanceType"]
                self._move(instance["InstanceId"], "Pending:Wait")
                return

    def _move(self, instance: str, state: str) -> None:
        """Say an instance's state to the local cloud, which knows what hooks it waits for then."""
        asked = urlencode({"group": self.name, "instance": instance, "state": state})
        told: Any = self._tell_cloud("POST", f"/-/lifecycle-states?{asked}", None)
        self.states[instance] = told["state"]


def _all_spot(mixed: Mapping[str, Any]) -> Any:
    """The launch template and its overrides of a group without instances on demand."""
    asked = mixed["InstancesDistribution"]
    assert (asked["OnDemandBaseCapacity"], asked["OnDemandPercentageAboveBaseCapacity"]) == (0, 0)
    return mixed["LaunchTemplate"]
