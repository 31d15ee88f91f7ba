"""moto's Auto Scaling, for groups without instances: what they point at is true, and nothing is launched.

A group's machines would be moto's records alone, so a call that would launch some is refused. moto knows no
instance refreshes: `bake.localcloud.api.instance_refreshes` has them.
https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import AutoScalingBackend, autoscaling_backends
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import instance_refreshes, launch_templates, lifecycle_states

_LARGEST_PAGE = 100
# What a group is made of: one of these, by moto's names.
_SOURCES = ("launch_config_name", "launch_template", "mixed_instances_policy")


class LocalAutoScaling(lifecycle_states.LifecycleStates, AutoScalingBackend):  # type: ignore[misc]
    """One region's Auto Scaling groups."""

    # moto finds a service's URLs by the module of its backend's class.
    __module__ = AutoScalingBackend.__module__

    def create_auto_scaling_group(self, name: str, **asked: Any) -> Any:
        """Create a group of a template, a mixed policy or a launch configuration, without instances."""
        if name in self.autoscaling_groups:
            raise AutoscalingClientError(
                "AlreadyExists",
                f"AutoScalingGroup by this name already exists - A group with the name {name} already exists",
            )
        if asked.get("instance_id"):
            raise NotImplementedError("a group made of an instance")
        _check_sizes(asked.get("min_size"), asked.get("max_size"), asked.get("desired_capacity"))
        self._check_source(asked)
        return super().create_auto_scaling_group(name=name, **asked)

    def update_auto_scaling_group(self, name: str, **asked: Any) -> Any:
        """As moto's, which takes a mixed policy away from a group that keeps it."""
        group = self._known(name)
        refresh = instance_refreshes.active(group)
        if refresh is not None and refresh.desired and any(asked.get(one) for one in _SOURCES):
            raise ValidationError(instance_refreshes.LOCKED)
        low, high = (_either(asked.get(size), getattr(group, size)) for size in ("min_size", "max_size"))
        _check_sizes(low, high, asked.get("desired_capacity"))
        self._check_source(asked)
        policy = group.mixed_instances_policy
        if any(asked.get(one) for one in _SOURCES):
            group.launch_config = group.launch_configuration_name = group.ec2_launch_template = policy = None
        super().update_auto_scaling_group(name=name, **asked)
        group.mixed_instances_policy = group.mixed_instances_policy or policy
        return group

    def describe_auto_scaling_groups(self, *asked: Any, **named: Any) -> list[Any]:
        """As moto's, with what refreshes that ended meanwhile have changed."""
        for name in list(self.autoscaling_groups):
            self._known(name)
        found: list[Any] = super().describe_auto_scaling_groups(*asked, **named)
        return found

    def start_instance_refresh(self, name: str, asked: Mapping[str, Any]) -> str:
        """Start a refresh, which replaces nothing; its id."""
        return instance_refreshes.start(self._known(name), asked, self._template)

    def describe_instance_refreshes(self, name: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """A group's refreshes, the newest first, or those of these ids."""
        found = [one.told for one in instance_refreshes.all_of(self._known(name))]
        return [one for one in found if not ids or one["InstanceRefreshId"] in ids]

    def cancel_instance_refresh(self, name: str) -> str:
        """Cancel the refresh that goes on; its id."""
        return instance_refreshes.cancel(self._known(name))

    def rollback_instance_refresh(self, name: str) -> str:
        """Roll the refresh back that goes on; its id."""
        return instance_refreshes.roll_back(self._known(name))

    def suspend_processes(self, group_name: str, scaling_processes: Sequence[str]) -> None:
        """As moto's, which fails on a group that is not there."""
        self._known(group_name)
        super().suspend_processes(group_name, scaling_processes)

    def resume_processes(self, group_name: str, scaling_processes: Sequence[str]) -> None:
        """As moto's, which fails on a group that is not there."""
        self._known(group_name)
        super().resume_processes(group_name, scaling_processes)

    def set_desired_capacity(self, group_name: str, desired_capacity: int | None) -> None:
        """As moto's, within the group's bounds; none is launched."""
        group = self._known(group_name)
        _check_sizes(group.min_size if desired_capacity else 0, group.max_size, desired_capacity)
        super().set_desired_capacity(group_name, desired_capacity)

    def delete_launch_configuration(self, launch_configuration_name: str) -> None:
        """As moto's, which fails on one that is not there, and deletes one in use."""
        self._configuration(launch_configuration_name)
        for group in self.autoscaling_groups.values():
            if getattr(group, "launch_configuration_name", None) == launch_configuration_name:
                raise AutoscalingClientError(
                    "ResourceInUse",
                    f"Cannot delete launch configuration {launch_configuration_name} because it is attached "
                    f"to AutoScalingGroup {group.name}",
                )
        super().delete_launch_configuration(launch_configuration_name)

    def create_launch_configuration(self, name: str, image_id: str, **asked: Any) -> Any:
        """As moto's, which takes any AMI, and one name twice."""
        if name in self.launch_configurations:
            raise AutoscalingClientError(
                "AlreadyExists",
                "Launch Configuration by this name already exists - A launch configuration already exists "
                f"with the name {name}",
            )
        if image_id and image_id not in self.ec2_backend.amis:
            raise ValidationError(f"AMI cannot be described: {image_id}")
        return super().create_launch_configuration(name=name, image_id=image_id, **asked)

    def _known(self, name: str) -> Any:
        if name not in self.autoscaling_groups:
            raise ValidationError(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        group = self.autoscaling_groups[name]
        if desired := instance_refreshes.settle(group):
            self._take_over(name, desired)
        return group

    def _take_over(self, name: str, desired: Mapping[str, Any]) -> None:
        """Give a group what a refresh that succeeded was to give it."""
        asked = dict.fromkeys(
            ("availability_zones", "desired_capacity", "max_size", "min_size", "launch_config_name")
        )
        asked |= dict.fromkeys(("vpc_zone_identifier", "health_check_period", "health_check_type"))
        sources = {
            "launch_template": copy.deepcopy(desired.get("LaunchTemplate") or {}),
            "mixed_instances_policy": copy.deepcopy(desired.get("MixedInstancesPolicy")),
        }
        self.update_auto_scaling_group(name, **asked, **sources)

    def _configuration(self, name: str) -> None:
        if name not in self.launch_configurations:
            raise ValidationError(
                f"Launch configuration name not found - Launch configuration {name} not found"
            )

    def _check_source(self, asked: Mapping[str, Any]) -> None:
        """Raise ValidationError for a template, version or configuration that is not there, and for two."""
        if sum(bool(asked.get(one)) for one in _SOURCES) > 1:
            raise ValidationError(
                "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or "
                "MixedInstancesPolicy parameter."
            )
        if name := asked.get("launch_config_name"):
            self._configuration(name)
        if plain := asked.get("launch_template"):
            self._template(plain)
        if policy := asked.get("mixed_instances_policy"):
            mixed = policy.get("LaunchTemplate") or {}
            self._template(mixed.get("LaunchTemplateSpecification") or {})
            for override in mixed.get("Overrides") or []:
                if own := override.get("LaunchTemplateSpecification"):
                    template = self._template(own)
                    # A description has both, whichever was given; moto completes the others itself.
                    own |= {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name}

    def _template(self, named: dict[str, Any]) -> Any:
        try:
            template = launch_templates.find(named, self.ec2_backend)
            launch_templates.version_of(template, named.get("Version") or "$Default")
            return template
        except EC2ClientError as error:
            raise ValidationError(
                f"You must use a valid fully-formed launch template. {error.message}"
            ) from error


def _either(asked: int | None, before: int) -> int:
    return before if asked is None else asked


def _check_sizes(low: int | None, high: int | None, desired: int | None) -> None:
    """Raise ValidationError for bounds that no group has; NotImplementedError for one with instances."""
    if low is None or high is None:
        raise ValidationError("The parameters MinSize and MaxSize are required.")
    if not 0 <= low <= high:
        raise ValidationError(f"Min bound, {low}, must be less than or equal to max bound, {high}")
    if desired is not None and not low <= desired <= high:
        raise ValidationError(
            f"Desired capacity:{desired} must be between the specified min size:{low} and max size:{high}"
        )
    if desired or low:
        raise NotImplementedError("a group with instances: no machine would be behind them")


def install() -> None:
    """Make moto build its Auto Scaling from this; to be called before the first request."""
    for operation, names in (
        ("describe_auto_scaling_groups", lambda backend: backend.autoscaling_groups),
        ("describe_launch_configurations", lambda backend: backend.launch_configurations),
    ):
        setattr(AutoScalingResponse, operation, _paged(getattr(AutoScalingResponse, operation), names))
    for operation, answer in _REFRESHES.items():
        setattr(AutoScalingResponse, operation, answer)
    lifecycle_states.install()
    autoscaling_backends.backend = LocalAutoScaling


def _paged(of_moto: Any, names: Any) -> Any:
    """A description whose page is checked: moto fails on a wrong one."""

    def described(self: Any) -> Any:
        token, most = self._get_param("NextToken"), self._get_int_param("MaxRecords")
        if most is not None and not 1 <= most <= _LARGEST_PAGE:
            raise ValidationError(f"MaxRecords must be between 1 and {_LARGEST_PAGE}")
        if token is not None and token not in names(self.autoscaling_backend):
            raise AutoscalingClientError("InvalidNextToken", "The NextToken value is not valid.")
        return of_moto(self)

    return described


def _named(operation: str) -> Any:
    """An operation on the refresh that goes on, which answers with its id."""

    def answered(self: Any) -> ActionResult:
        act = getattr(self.autoscaling_backend, operation)
        return ActionResult({"InstanceRefreshId": act(self._get_param("AutoScalingGroupName"))})

    return answered


def _start(self: Any) -> ActionResult:
    asked = self._get_params()
    made = self.autoscaling_backend.start_instance_refresh(asked["AutoScalingGroupName"], asked)
    return ActionResult({"InstanceRefreshId": made})


def _describe(self: Any) -> ActionResult:
    """A page of refreshes: the token is the number of those before it."""
    name, ids = self._get_param("AutoScalingGroupName"), self._get_param("InstanceRefreshIds", [])
    token, most = str(self._get_param("NextToken") or "0"), self._get_int_param("MaxRecords")
    if most is not None and not 1 <= most <= _LARGEST_PAGE:
        raise ValidationError(f"MaxRecords must be between 1 and {_LARGEST_PAGE}")
    found = self.autoscaling_backend.describe_instance_refreshes(name, ids)
    if not token.isdecimal() or int(token) > len(found):
        raise AutoscalingClientError("InvalidNextToken", "The NextToken value is not valid.")
    first = int(token)
    after = first + (most or 50)
    return ActionResult(
        {
            "InstanceRefreshes": found[first:after],
            "NextToken": str(after) if after < len(found) else None,
        }
    )


_REFRESHES: Mapping[str, Callable[[Any], ActionResult]] = {
    "start_instance_refresh": _start,
    "describe_instance_refreshes": _describe,
    "cancel_instance_refresh": _named("cancel_instance_refresh"),
    "rollback_instance_refresh": _named("rollback_instance_refresh"),
}
