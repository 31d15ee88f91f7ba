"""moto's Auto Scaling, for groups without instances: what they point at is true, and nothing is launched.

A group's machines would be moto's records alone, so a call that would launch some is refused.
https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.models import AutoScalingBackend, autoscaling_backends
from moto.autoscaling.responses import AutoScalingResponse
from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import launch_templates, lifecycle_states

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
        low, high = (_either(asked.get(size), getattr(group, size)) for size in ("min_size", "max_size"))
        _check_sizes(low, high, asked.get("desired_capacity"))
        self._check_source(asked)
        policy = group.mixed_instances_policy
        if any(asked.get(one) for one in _SOURCES):
            group.launch_config = group.launch_configuration_name = group.ec2_launch_template = policy = None
        super().update_auto_scaling_group(name=name, **asked)
        group.mixed_instances_policy = group.mixed_instances_policy or policy
        return group

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
        return self.autoscaling_groups[name]

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
