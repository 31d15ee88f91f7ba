"""Complete the lifecycle hooks of the instance's Auto Scaling group."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from .imds import Imds, MetadataUnavailable

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient

log = logging.getLogger(__name__)

Change = Literal["Pending", "Terminating"]

_TRANSITIONS = {
    "Pending": "autoscaling:EC2_INSTANCE_LAUNCHING",
    "Terminating": "autoscaling:EC2_INSTANCE_TERMINATING",
}

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_CONNECT_SECONDS, _READ_SECONDS = 2, 3  # ten seconds are left for lifecycle hooks at the end


class Group:
    """Completes lifecycle hooks. A failure is logged once; the hook then ends by its own timeout."""

    def __init__(self, imds: Imds, region: str | None) -> None:
        self._imds = imds
        self._region = region
        self._said: set[str] = set()

    def complete(self, change: Change) -> bool:
        """Complete the hooks if the instance waits in this transition; False if a retry may help."""
        try:
            if self._imds.get("autoscaling/target-lifecycle-state") is None:
                return True  # in no group
            return self._complete(change, self._imds.get("instance-id") or "")
        except (BotoCoreError, ClientError, ResponseParserError, MetadataUnavailable) as error:
            denied = isinstance(error, ClientError) and error.response["Error"]["Code"] in _DENIED
            fate = "wait for their timeout" if denied else "are retried"
            if fate not in self._said:
                log.warning("lifecycle hooks of %s %s: %s", change, fate, error)
            self._said.add(fate)
            return denied

    def _complete(self, change: Change, instance: str) -> bool:
        found = self._client.describe_auto_scaling_instances(InstanceIds=[instance])["AutoScalingInstances"]
        # Such as Pending, Pending:Wait, Pending:Proceed, InService; in a warm pool, Warmed:Pending:Wait.
        state = found[0]["LifecycleState"].removeprefix("Warmed:") if found else ""
        if state == f"{change}:Wait":
            self._answer(found[0]["AutoScalingGroupName"], _TRANSITIONS[change], instance)
        # The group may list a new instance late, and one in transition is about to wait.
        return state not in ("", change)

    def _answer(self, group: str, transition: str, instance: str) -> None:
        hooks = self._client.describe_lifecycle_hooks(AutoScalingGroupName=group)["LifecycleHooks"]
        for name in (h["LifecycleHookName"] for h in hooks if h.get("LifecycleTransition") == transition):
            try:
                self._client.complete_lifecycle_action(
                    AutoScalingGroupName=group,
                    LifecycleHookName=name,
                    InstanceId=instance,
                    LifecycleActionResult="CONTINUE",
                )
                log.info("lifecycle hook %s of %s completed", name, group)
            except ClientError as error:  # for example, somebody else completed it
                log.warning("lifecycle hook %s of %s was not completed: %s", name, group, error)

    @cached_property
    def _client(self) -> AutoScalingClient:
        import boto3
        from botocore.config import Config

        # The group is in the instance's region, which may differ from the queue's (R-REGIONS).
        region = self._region or self._imds.get("placement/region")
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 2},
        )
        client: AutoScalingClient = boto3.client("autoscaling", region_name=region, config=config)
        return client
