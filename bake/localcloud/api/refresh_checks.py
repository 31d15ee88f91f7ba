"""What StartInstanceRefresh refuses, by the API's reference and the user guide.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_RefreshPreferences.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/replace-root-volume.html
AWS writes some of these messages otherwise; the code is ValidationError in each case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moto.autoscaling.exceptions import ValidationError
from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import launch_templates

DAYS = 172_800  # seconds of a checkpoint's delay, and of a bake time, at most
_RANGES: Mapping[str, tuple[int, int]] = {
    "MinHealthyPercentage": (0, 100),
    "MaxHealthyPercentage": (100, 200),
    "InstanceWarmup": (0, 2**31 - 1),
    "CheckpointDelay": (0, DAYS),
    "BakeTime": (0, DAYS),
}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "ScaleInProtectedInstances": ("Refresh", "Ignore", "Wait"),
    "StandbyInstances": ("Terminate", "Ignore", "Wait"),
}
REPLACE_ROOT_VOLUME = "ReplaceRootVolume"
_WITHOUT = (
    "The request isn't valid. The AutoRollback parameter cannot be set to true when the DesiredConfiguration "
    "parameter is empty. Set AutoRollback to false or specify a desired configuration and try again."
)

Desired = Mapping[str, Any]


def check(group: Any, asked: Mapping[str, Any], check_template: Callable[[dict[str, Any]], Any]) -> None:
    """Raise ValidationError for a refresh that AWS would not start."""
    strategy, desired = asked.get("Strategy") or "Rolling", asked.get("DesiredConfiguration") or {}
    preferences = asked.get("Preferences") or {}
    if strategy not in ("Rolling", REPLACE_ROOT_VOLUME):
        raise ValidationError(
            f"Value '{strategy}' at 'strategy' failed to satisfy constraint: enum value set"
        )
    _check_preferences(preferences)
    if desired and bool(desired.get("LaunchTemplate")) == bool(desired.get("MixedInstancesPolicy")):
        raise ValidationError(
            "A desired configuration has either a LaunchTemplate or a MixedInstancesPolicy."
        )
    for named in templates(desired):
        check_template(named)
    if is_true(preferences.get("AutoRollback")):
        if not desired:
            raise ValidationError(_WITHOUT)
        if why := irreversible(group, desired):
            raise ValidationError(
                f"The request isn't valid. The AutoRollback parameter cannot be true: {why}"
            )
    if strategy == REPLACE_ROOT_VOLUME:
        _check_root_volumes(group, desired)


def is_true(value: Any) -> bool:
    """Whether a parameter of the query protocol, or a parsed one, says yes."""
    return str(value).lower() == "true"


def templates(desired: Desired) -> Iterator[dict[str, Any]]:
    """The launch templates that a desired configuration names."""
    if plain := desired.get("LaunchTemplate"):
        yield plain
    mixed = (desired.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    if named := mixed.get("LaunchTemplateSpecification"):
        yield named
    for override in mixed.get("Overrides") or []:
        if own := override.get("LaunchTemplateSpecification"):
            yield own


def irreversible(group: Any, desired: Desired) -> str:
    """Why a refresh can't be rolled back; empty if it can.

    Both the group's own configuration and the desired one must name a version by its number, and an AMI by
    its id.
    """
    if not desired:
        return "there is no desired configuration."
    for whose, named in [
        *(("group", one) for one in _own(group)),
        *(("desired", t) for t in templates(desired)),
    ]:
        version = str(named.get("Version") or "$Default")
        if not version.isdecimal():
            return f"the {whose} configuration uses the {version} version of its launch template."
        if _image(group, named).startswith(launch_templates.BY_PARAMETER):
            return f"the launch template of the {whose} configuration takes its AMI from Systems Manager."
    return ""


def _own(group: Any) -> Iterator[dict[str, Any]]:
    """The templates that a group has now."""
    policy = group.mixed_instances_policy
    yield from templates(
        {"MixedInstancesPolicy": policy} if policy else {"LaunchTemplate": group.launch_template}
    )


def _image(group: Any, named: Mapping[str, Any]) -> str:
    """What stands for the AMI in a template's version; empty if nothing."""
    identity = named.get("LaunchTemplateId")  # a description has the name as well
    only = {"LaunchTemplateId": identity} if identity else {"LaunchTemplateName": named["LaunchTemplateName"]}
    try:
        template = launch_templates.find(only, group.ec2_backend)
        data = launch_templates.version_of(template, str(named.get("Version") or "$Default")).data
    except EC2ClientError as error:
        raise ValidationError(
            f"You must use a valid fully-formed launch template. {error.message}"
        ) from error
    return str(data.get("ImageId") or "")


def _check_preferences(told: Mapping[str, Any]) -> None:
    for name, (low, high) in _RANGES.items():
        if (value := told.get(name)) is not None and not low <= int(value) <= high:
            raise ValidationError(
                f"1 validation error detected: Value '{value}' at 'preferences.{name}' failed to satisfy "
                f"constraint: Member must have value between {low} and {high}"
            )
    for name, words in _WORDS.items():
        if (value := told.get(name)) is not None and value not in words:
            raise ValidationError(
                f"1 validation error detected: Value '{value}' at 'preferences.{name}' failed to satisfy "
                f"constraint: Member must satisfy enum value set: [{', '.join(words)}]"
            )
    least, most = told.get("MinHealthyPercentage"), told.get("MaxHealthyPercentage")
    if most is not None and (least is None or int(most) - int(least) > 100):
        raise ValidationError(
            "MaxHealthyPercentage needs a MinHealthyPercentage that is at most 100 percentage points lower."
        )
    _check_checkpoints(told)


def _check_checkpoints(told: Mapping[str, Any]) -> None:
    given = [int(one) for one in told.get("CheckpointPercentages") or []]
    if told.get("CheckpointDelay") is not None and not given:
        raise ValidationError("CheckpointDelay needs CheckpointPercentages.")
    if given != sorted(set(given)) or any(not 1 <= one <= 100 for one in given):
        raise ValidationError("CheckpointPercentages must be unique values from 1 to 100 in ascending order.")


def _check_root_volumes(group: Any, desired: Desired) -> None:
    """Raise ValidationError unless all overrides have an AMI with one volume."""
    mixed = (desired.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    if group.mixed_instances_policy is None or not mixed:
        raise ValidationError(
            "The ReplaceRootVolume strategy needs a mixed instances policy, of the group and of the desired "
            "configuration."
        )
    overrides = mixed.get("Overrides") or []
    if not overrides or not all(one.get("ImageId") for one in overrides):
        raise ValidationError(
            "All overrides in the MixedInstancesPolicy must specify an ImageId for ReplaceRootVolume."
        )
    for image in {one["ImageId"] for one in overrides}:
        found = group.ec2_backend.amis.get(image)
        if found is None:
            raise ValidationError(f"AMI cannot be described: {image}")
        if volumes(found) != 1:
            raise ValidationError(f"The AMI {image} must contain only a single root volume.")


def volumes(image: Any) -> int:
    """How many EBS volumes one of the local cloud's AMIs makes."""
    return 1 + sum("Ebs" in one for one in getattr(image, "more_mappings", ()))
