"""How instances are replaced: the preferences of an instance refresh, with defaults for scarce spot GPUs.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_RefreshPreferences.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bake.errors import UsageError
from bake.rollout.groups import Group

Strategy = Literal["Rolling", "ReplaceRootVolume"]
ROLLING: Strategy = "Rolling"
ROOT_VOLUMES: Strategy = "ReplaceRootVolume"
# A new instance is launched before an old one is ended: where the region has no GPU left, the old one stays.
FIRST_LAUNCH = (100, 110)
# An instance is out of service while its volume is replaced, and no other one stands in for it.
FEW_AT_ONCE = 90
# AWS takes no wider range.
RANGE = 100


@dataclass(frozen=True)
class Preferences:
    """What was asked for; None leaves it to the group, or to the default.

    Percentages are of the desired capacity, times are in seconds. `protected` and `standby` say what becomes
    of instances that are protected from scale-in, or in Standby.
    """

    min_healthy: int | None = None
    max_healthy: int | None = None
    warmup: int | None = None
    rollback: bool = True
    skip_matching: bool = True
    protected: str = "Ignore"
    standby: str = "Ignore"
    bake_time: int | None = None
    checkpoints: tuple[int, ...] = ()
    checkpoint_delay: int | None = None

    def check(self) -> None:
        """Raise UsageError for what AWS would refuse."""
        if self.checkpoint_delay is not None and not self.checkpoints:
            raise UsageError("--checkpoint-delay is for checkpoints", hint="add --checkpoint PERCENT")
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise UsageError("--checkpoint: give each percentage once, in ascending order")
        if self.max_healthy is not None and self.max_healthy - self._least(ROLLING) > RANGE:
            raise UsageError(
                f"--max-healthy {self.max_healthy} is more than {RANGE} above --min-healthy "
                f"{self._least(ROLLING)}: AWS takes no such range"
            )

    def request(self, group: Group, strategy: Strategy) -> dict[str, Any]:
        """The Preferences of StartInstanceRefresh for this group."""
        told: dict[str, Any] = {
            **self._healthy(group, strategy),
            "InstanceWarmup": self.warmup,
            "AutoRollback": self.rollback,
            "SkipMatching": self.skip_matching,
            "ScaleInProtectedInstances": self.protected,
            "StandbyInstances": self.standby,
            "BakeTime": self.bake_time,
            "CheckpointPercentages": self._all_of_it() or None,
            "CheckpointDelay": self.checkpoint_delay,
        }
        return {name: value for name, value in told.items() if value is not None}

    def _healthy(self, group: Group, strategy: Strategy) -> dict[str, int]:
        """The range of healthy instances; nothing where the group's own maintenance policy has one."""
        if self.min_healthy is None and self.max_healthy is None and group.keeps_healthy:
            return {}
        least = self._least(strategy)
        most = self.max_healthy
        if most is None and strategy == ROLLING and FIRST_LAUNCH[1] - least <= RANGE:
            most = FIRST_LAUNCH[1]
        return {"MinHealthyPercentage": least, **({} if most is None else {"MaxHealthyPercentage": most})}

    def _least(self, strategy: Strategy) -> int:
        if self.min_healthy is not None:
            return self.min_healthy
        return FIRST_LAUNCH[0] if strategy == ROLLING else FEW_AT_ONCE

    def _all_of_it(self) -> list[int]:
        """The checkpoints with 100 as the last: with less AWS would leave the rest as it is."""
        return [*self.checkpoints, *([100] if self.checkpoints and self.checkpoints[-1] != 100 else [])]
