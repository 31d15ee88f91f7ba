"""An Auto Scaling group as AWS describes it: what it launches, its instances, what is suspended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bake.aws import Aws
from bake.errors import UsageError

# Without these a refresh replaces nothing:
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/understand-how-suspending-processes-affects-other-processes.html
NEEDED = ("Launch", "Terminate", "InstanceRefresh")
DEFAULT = "$Default"


@dataclass(frozen=True)
class Group:
    """A group by its name; `told` is DescribeAutoScalingGroups' answer of it."""

    name: str
    told: Mapping[str, Any]

    @property
    def policy(self) -> Mapping[str, Any]:
        """Its mixed instances policy; empty if it has none."""
        found: Mapping[str, Any] = self.told.get("MixedInstancesPolicy") or {}
        return found

    @property
    def specification(self) -> Mapping[str, str]:
        """The launch template that it goes by, with its version; empty for one of a launch configuration."""
        mixed: Mapping[str, str] = self.policy.get("LaunchTemplate", {}).get("LaunchTemplateSpecification")
        plain: Mapping[str, str] = self.told.get("LaunchTemplate") or {}
        return mixed or plain

    @property
    def version(self) -> str:
        """The version of its template as it names it: a number, `$Default` or `$Latest`."""
        return str(self.specification.get("Version") or DEFAULT)

    @property
    def versions(self) -> tuple[str, ...]:
        """The same with those that overrides name themselves, each once."""
        own = [one.get("LaunchTemplateSpecification") for one in self.overrides]
        named = [str(one.get("Version") or DEFAULT) for one in own if one]
        return tuple(dict.fromkeys((self.version, *named)))

    @property
    def overrides(self) -> list[Mapping[str, Any]]:
        """The overrides of its policy."""
        return list(self.policy.get("LaunchTemplate", {}).get("Overrides") or [])

    @property
    def configuration(self) -> str:
        """The launch configuration that it goes by; empty for one of a template."""
        return str(self.told.get("LaunchConfigurationName") or "")

    @property
    def suspended(self) -> tuple[str, ...]:
        """The processes that a refresh needs, and that are suspended."""
        found = {str(one["ProcessName"]) for one in self.told.get("SuspendedProcesses", [])}
        return tuple(one for one in NEEDED if one in found)

    @property
    def desired(self) -> int:
        """How many instances it is to have, in the units that its overrides weigh them by."""
        return int(self.told.get("DesiredCapacity") or 0)

    @property
    def instances(self) -> list[Mapping[str, Any]]:
        """Its instances; of a warm pool, none."""
        return list(self.told.get("Instances") or [])

    @property
    def keeps_healthy(self) -> bool:
        """Whether its own maintenance policy says how many instances stay healthy; AWS tells -1 for none."""
        policy = self.told.get("InstanceMaintenancePolicy") or {}
        return any(int(policy.get(f"{one}HealthyPercentage", -1)) >= 0 for one in ("Min", "Max"))

    def types(self, of_template: str = "") -> Iterator[str]:
        """The instance types that it launches: those of its overrides, or else the template's own."""
        named = [str(one["InstanceType"]) for one in self.overrides if one.get("InstanceType")]
        yield from dict.fromkeys(named or ([of_template] if of_template and not self.overrides else []))


def describe(aws: Aws, name: str) -> Group:
    """The group of this name; UsageError if the region has none."""
    found = aws.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    if not found:
        every = "AutoScalingGroups[].AutoScalingGroupName"
        raise UsageError(
            f"there is no Auto Scaling group {name} in {aws.region}",
            hint="its groups: "
            + aws.command("autoscaling", "describe-auto-scaling-groups", "--query", every),
        )
    return Group(name, found[0])
