"""Ask what refers to AMIs in a region of the account. It judges nothing, and what it can't ask it says.

DescribeImageReferences, EC2's own check, knows instances, launch templates, SSM parameters of the data type
aws:ec2:image, and Image Builder. It knows nothing of Auto Scaling, of Spot requests, of a template that goes
by a parameter, or of a parameter of plain text; so all of these are asked for, too.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-ami-references.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from bake.aws import Aws
from bake.background import start
from bake.creation import unless_absent
from bake.lifecycle.holding import Holding
from bake.lifecycle.machines import AT_ONCE, LIVE, USES_AMI, images_by_snapshot
from bake.lifecycle.proof import GROUP, INSTANCE, PARAMETER, TEMPLATE, Mention, Reference

T = TypeVar("T")

IMAGE = re.compile(r"ami-(?:[0-9a-f]{17}|[0-9a-f]{8})(?![0-9a-f])")
BY_PARAMETER = "resolve:ssm:"
PUBLIC = "/aws/service/"  # AWS's own parameters name AWS's own AMIs
REFERENCES_AT_ONCE = 10  # AMIs of one DescribeImageReferences
NAMES_AT_ONCE = 10  # parameters of one GetParameters
SIDE_BY_SIDE = 8  # templates; EC2 refills 20 such calls a second
FLEETS = ["submitted", "active", "modifying"]
# All versions of a template; ten are looked at unless the call says how many.
ALL_VERSIONS = [{"OptionName": "version-depth", "OptionValues": ["10000"]}]
KINDS: Mapping[str, list[dict[str, Any]]] = {
    "ec2:Instance": [{"OptionName": "state-name", "OptionValues": USES_AMI}],
    "ec2:LaunchTemplate": ALL_VERSIONS,
    "ssm:Parameter": [],
    "imagebuilder:ImageRecipe": [],
    "imagebuilder:ContainerRecipe": [],
}
# What an ARN's resource begins with, and what people call it.
NAMES = {
    "instance/": INSTANCE,
    "launch-template/": TEMPLATE,
    "parameter/": PARAMETER,
    "image-recipe/": "Image Builder recipe",
    "container-recipe/": "Image Builder container recipe",
}

Asks = Callable[[Aws, Sequence[Holding]], Iterable[Mention]]


def known_to_ec2(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """What EC2 itself knows to refer to AMIs of the account."""
    kinds: Any = [
        {"ResourceType": kind, **({"ResourceTypeOptions": options} if options else {})}
        for kind, options in KINDS.items()
    ]
    pages = aws.ec2.get_paginator("describe_image_references")
    for some in _some([one.id for one in held], REFERENCES_AT_ONCE):
        for page in pages.paginate(ImageIds=some, ResourceTypes=kinds):
            for raw in page["ImageReferences"]:
                yield raw["ImageId"], _of_arn(raw["Arn"], raw["ResourceType"])


def _of_arn(arn: str, kind: str) -> Reference:
    resource = arn.split(":", 5)[-1]
    for prefix, name in NAMES.items():
        if resource.startswith(prefix):
            return Reference(name, resource.removeprefix(prefix))
    return Reference(kind, arn)


def instances(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """Instances that run or may be started again."""
    pages = aws.ec2.get_paginator("describe_instances")
    for some in _some([one.id for one in held], AT_ONCE):
        filters: Any = _filters({"image-id": some, "instance-state-name": USES_AMI})
        for page in pages.paginate(Filters=filters):
            for raw in (each for group in page["Reservations"] for each in group["Instances"]):
                yield raw["ImageId"], Reference(INSTANCE, raw["InstanceId"], f"({raw['State']['Name']})")


def templates(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """All versions of all launch templates, also those that go by an SSM parameter."""
    pages = aws.ec2.get_paginator("describe_launch_templates").paginate()
    listed = [raw["LaunchTemplateId"] for page in pages for raw in page["LaunchTemplates"]]
    ids, resolved = {one.id for one in held}, _Resolved(aws)
    for versions in _side_by_side(listed, lambda one: _versions(aws, one)):
        for raw in versions:
            if (image := resolved.image_of(raw)) in ids:
                how = "" if image == _named(raw) else f", by {_named(raw)}"
                what = f"version {raw['VersionNumber']}{how}"
                yield image, Reference(TEMPLATE, raw["LaunchTemplateId"], what)


def _versions(aws: Aws, template: str, *only: str) -> list[Any]:
    """Versions of a template, all unless some are named; none of one that is gone."""
    asked: Any = {"LaunchTemplateId": template, **({"Versions": list(only)} if only else {})}
    pages = aws.ec2.get_paginator("describe_launch_template_versions")
    return (
        unless_absent(
            lambda: [raw for page in pages.paginate(**asked) for raw in page["LaunchTemplateVersions"]]
        )
        or []
    )


def _named(version: Any) -> str:
    return str(version["LaunchTemplateData"].get("ImageId") or "")


class _Resolved:
    """The AMIs that launch templates name, also by an SSM parameter, which is asked for once."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._known: dict[str, str] = {}

    def image_of(self, version: Any) -> str:
        """The AMI of a template's version; empty if it names none, or a parameter that is not there."""
        return self.image(_named(version))

    def image(self, named: str) -> str:
        """The AMI that this names."""
        if not named.startswith(BY_PARAMETER):
            return named
        name = named.removeprefix(BY_PARAMETER)
        if name.startswith(PUBLIC):
            return ""
        if name not in self._known:
            found = self._aws.ssm.get_parameters(Names=[name])["Parameters"]  # none, if it is not there
            self._known[name] = str(found[0]["Value"]) if found else ""
        return self._known[name]


def groups(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """Auto Scaling groups: their templates, mixed instances with overrides, and launch configurations."""
    configured = dict(_configurations(aws))
    looked_up = _Launched(aws)
    for page in aws.autoscaling.get_paginator("describe_auto_scaling_groups").paginate():
        for group in page["AutoScalingGroups"]:
            name = group["AutoScalingGroupName"]
            if configuration := group.get("LaunchConfigurationName"):
                image = configured.get(configuration, "")
                yield image, Reference(GROUP, name, f"by launch configuration {configuration}")
            for image, how in looked_up.of(group):
                yield image, Reference(GROUP, name, how)
    for configuration, image in configured.items():  # one that no group has may get one
        yield image, Reference("launch configuration", configuration)


def _configurations(aws: Aws) -> Iterator[tuple[str, str]]:
    for page in aws.autoscaling.get_paginator("describe_launch_configurations").paginate():
        for raw in page["LaunchConfigurations"]:
            yield raw["LaunchConfigurationName"], str(raw.get("ImageId", ""))


class _Launched:
    """What Auto Scaling groups launch by templates; each version that one names is asked for once."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._resolved = _Resolved(aws)
        self._versions: dict[tuple[str, str], list[Any]] = {}

    def of(self, group: Any) -> Iterator[tuple[str, str]]:
        """The AMIs of a group, and how it names each."""
        mixed = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
        overrides = mixed.get("Overrides", [])
        for override in overrides:
            if override.get("ImageId"):
                yield self._resolved.image(override["ImageId"]), "by an override of its launch template"
        named = [group.get("LaunchTemplate"), mixed.get("LaunchTemplateSpecification")]
        named += [override.get("LaunchTemplateSpecification") for override in overrides]
        for one in filter(None, named):
            for raw in self._of_template(one["LaunchTemplateId"], one.get("Version") or "$Default"):
                how = f"by launch template {one['LaunchTemplateId']} version {raw['VersionNumber']}"
                yield self._resolved.image_of(raw), how

    def _of_template(self, template: str, version: str) -> list[Any]:
        if (template, version) not in self._versions:
            self._versions[template, version] = _versions(self._aws, template, version)
        return self._versions[template, version]


def parameters(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """SSM parameters whose text has an AMI's id in it, whatever their data type; secret ones are not read."""
    kinds = [{"Key": "Type", "Option": "Equals", "Values": ["String", "StringList"]}]
    pages = aws.ssm.get_paginator("describe_parameters").paginate(ParameterFilters=kinds)
    names = [raw["Name"] for page in pages for raw in page["Parameters"]]
    for some in _some(names, NAMES_AT_ONCE):
        for raw in aws.ssm.get_parameters(Names=some)["Parameters"]:
            yield from ((image, Reference(PARAMETER, raw["Name"])) for image in IMAGE.findall(raw["Value"]))


def spot_requests(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """Spot requests that may still launch something."""
    pages = aws.ec2.get_paginator("describe_spot_instance_requests")
    for page in pages.paginate(Filters=_filters({"state": LIVE})):
        for raw in page["SpotInstanceRequests"]:
            image = raw.get("LaunchSpecification", {}).get("ImageId", "")
            yield image, Reference("Spot request", raw["SpotInstanceRequestId"])


def spot_fleets(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """Spot Fleets that may still launch something.

    EC2 Fleets that do launch by templates alone: only an instant one, which is over, may name an AMI itself.
    """
    for page in aws.ec2.get_paginator("describe_spot_fleet_requests").paginate():
        for raw in page["SpotFleetRequestConfigs"]:
            if raw["SpotFleetRequestState"] in FLEETS:
                for launch in raw["SpotFleetRequestConfig"].get("LaunchSpecifications", []):
                    yield launch.get("ImageId", ""), Reference("Spot Fleet", raw["SpotFleetRequestId"])


def other_images(aws: Aws, held: Sequence[Holding]) -> Iterator[Mention]:
    """Other AMIs of the account that are registered from the same snapshots, which EC2 then keeps."""
    known = images_by_snapshot(aws)
    for one in held:
        others = {other for snapshot in one.snapshots for other in known.get(snapshot, ())} - {one.id}
        yield from ((one.id, Reference("AMI", other, "is of the same snapshot")) for other in sorted(others))


# EC2's own check is the last: what it knows was found before with more to tell.
QUESTIONS: Mapping[str, Asks] = {
    "instances": instances,
    "launch templates": templates,
    "Auto Scaling groups": groups,
    "SSM parameters": parameters,
    "Spot requests": spot_requests,
    "Spot Fleets": spot_fleets,
    "other AMIs of the snapshots": other_images,
    "the references that EC2 knows": known_to_ec2,
}

# What EC2 tells by itself, with few calls and rights.
BY_EC2 = {name: QUESTIONS[name] for name in ("instances", "Spot requests", "the references that EC2 knows")}


def _filters(values: Mapping[str, Sequence[str]]) -> Any:
    return [{"Name": name, "Values": list(some)} for name, some in values.items()]


def _some(listed: Sequence[str], count: int) -> Iterator[list[str]]:
    for first in range(0, len(listed), count):
        yield list(listed[first : first + count])


def _side_by_side(listed: Collection[str], ask: Callable[[str], T]) -> Iterator[T]:
    """The answers about each of these, some asked for at a time."""
    for some in _some(list(listed), SIDE_BY_SIDE):
        answers = [start(lambda one=one: ask(one)) for one in some]  # type: ignore[misc]
        yield from (answer.result() for answer in answers)
