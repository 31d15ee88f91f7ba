"""The instance's Auto Scaling group: its lifecycle hooks, and what it is about to do with the instance.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/replace-root-volume.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from botocore.exceptions import ClientError

from . import regional
from .imds import Imds

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient

log = logging.getLogger(__name__)

T = TypeVar("T")
Change = Literal["Pending", "Terminating", "ReplacingRootVolume"]

# An instance whose root volume is replaced waits for the terminating hooks before it, in
# ReplacingRootVolume:Wait, and for the launching hooks after its reboot, in Pending:Wait.
_TRANSITIONS = {
    "Pending": "autoscaling:EC2_INSTANCE_LAUNCHING",
    "Terminating": "autoscaling:EC2_INSTANCE_TERMINATING",
    "ReplacingRootVolume": "autoscaling:EC2_INSTANCE_TERMINATING",
}
# States that come before the wait. "": the group may list a new instance late.
_BEFORE = {
    "Pending": (
        *("", "Pending", "ReplacingRootVolume", "ReplacingRootVolume:Wait", "ReplacingRootVolume:Proceed"),
        "RootVolumeReplaced",
    ),
    "Terminating": ("", "InService", "Terminating"),
    "ReplacingRootVolume": ("", "InService", "ReplacingRootVolume"),
}

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


class Group:
    """Asks Auto Scaling. Why a call failed is logged once; a hook then ends by its own timeout."""

    def __init__(self, imds: Imds, region: str | None) -> None:
        self._imds = imds
        self._region = region
        self._said: set[str] = set()
        self.denied = False
        """Whether the role may not make one of the calls."""

    def complete(self, change: Change) -> bool:
        """Complete the hooks if the instance waits in this transition; False if a retry may help."""

        def complete() -> bool:
            if self._imds.get("autoscaling/target-lifecycle-state") is None:
                return True  # in no group
            return self._complete(change)

        found = self._try(change, complete)
        return self.denied if found is None else found

    def state(self) -> str | None:
        """The instance's lifecycle state, such as InService; "" if it is in no group, None if that failed."""
        return self._try("ReplacingRootVolume", lambda: self._instance()[0])

    def heartbeat_seconds(self, change: Change) -> float | None:
        """How long the instance waits for its hooks in this transition; None without hooks or an answer."""

        def ask() -> float | None:
            hooks = self._hooks(self._instance()[1], change)
            return min((float(hook.get("HeartbeatTimeout", 0)) for hook in hooks), default=None)

        return self._try(change, ask)

    def _complete(self, change: Change) -> bool:
        state, group = self._instance()
        if state == f"{change}:Wait":
            self._answer(group, change)
        return state not in _BEFORE[change]

    def _instance(self) -> tuple[str, str]:
        """The instance's state and group."""
        identity = self._imds.get("instance-id") or ""
        found = self._client.describe_auto_scaling_instances(InstanceIds=[identity])["AutoScalingInstances"]
        if not found:
            return "", ""
        # Such as Pending, Pending:Wait, Pending:Proceed, InService; in a warm pool, Warmed:Pending:Wait.
        return found[0]["LifecycleState"].removeprefix("Warmed:"), found[0]["AutoScalingGroupName"]

    def _hooks(self, group: str, change: Change) -> list[Any]:
        if not group:
            return []
        hooks = self._client.describe_lifecycle_hooks(AutoScalingGroupName=group)["LifecycleHooks"]
        return [hook for hook in hooks if hook.get("LifecycleTransition") == _TRANSITIONS[change]]

    def _answer(self, group: str, change: Change) -> None:
        for name in (hook["LifecycleHookName"] for hook in self._hooks(group, change)):
            try:
                self._client.complete_lifecycle_action(
                    AutoScalingGroupName=group,
                    LifecycleHookName=name,
                    InstanceId=self._imds.get("instance-id") or "",
                    LifecycleActionResult="CONTINUE",
                )
                log.info("lifecycle hook %s of %s completed", name, group)
            except ClientError as error:  # for example, somebody else completed it
                log.warning("lifecycle hook %s of %s was not completed: %s", name, group, error)

    def _try(self, change: Change, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except regional.FAILURES as error:
            self.denied = isinstance(error, ClientError) and error.response["Error"]["Code"] in _DENIED
            fate = "wait for their timeout" if self.denied else "are retried"
            if fate not in self._said:
                log.warning("lifecycle hooks of %s %s: %s", change, fate, error)
            self._said.add(fate)
            return None

    @cached_property
    def _client(self) -> AutoScalingClient:
        client: AutoScalingClient = regional.client("autoscaling", self._region, self._imds)
        return client
