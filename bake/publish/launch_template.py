"""Numbered versions of a launch template that name an AMI by its literal id.

A version never changes once it is there, so what was launched by its number yesterday is launched tomorrow;
`$Latest`, `$Default` and a parameter in place of the id would say something else each day.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bake.aws import Aws
from bake.creation import unless_absent
from bake.errors import BakeError
from bake.publish.root_volume import RootVolume

# In place of an AMI's id: https://docs.aws.amazon.com/autoscaling/ec2/userguide/using-systems-manager-parameters.html
BY_PARAMETER = "resolve:ssm:"
# Seconds until a new version, or a new default, appears in the answers of EC2.
SHOWN = 60.0


class Changed(BakeError):
    """Somebody else has changed a template meanwhile; nothing was written over it."""


@dataclass(frozen=True)
class Version:
    """One version of a launch template. `image` is the AMI's id, or what stands in its place; empty if none.

    `data` is the launch template data as EC2 tells it; `warning` is what EC2 said of it as it was made.
    """

    template: str
    number: int
    image: str
    default: bool
    data: Mapping[str, Any] = field(default_factory=dict, compare=False)
    warning: str = field(default="", compare=False)


def versions(aws: Aws, template: str) -> list[Version] | None:
    """All versions of a template, oldest first; None if there is no such template."""
    pages = aws.ec2.get_paginator("describe_launch_template_versions")

    def ask() -> list[Any]:
        asked = pages.paginate(LaunchTemplateId=template)
        return [raw for page in asked for raw in page["LaunchTemplateVersions"]]

    found = unless_absent(ask)
    return None if found is None else sorted(map(_version, found), key=lambda one: one.number)


def of_image(known: list[Version], image: str) -> Version | None:
    """The newest of these versions that names the AMI by its literal id."""
    return next((one for one in reversed(known) if one.image == image), None)


def source_of(known: list[Version], template: str, source: int | None = None) -> Version:
    """The version that a new one is made from: `source`, or the current default.

    Raises BakeError if there is no such version, or if its AMI is named by an SSM parameter.
    """
    wanted = [one for one in known if (one.default if source is None else one.number == source)]
    if not wanted:
        numbers = ", ".join(str(one.number) for one in known) or "none"
        asked = "default version" if source is None else f"version {source}"
        raise BakeError(f"{template} has no {asked}", hint=f"its versions are {numbers}")
    (found,) = wanted
    if found.image.startswith(BY_PARAMETER):
        raise BakeError(
            f"version {found.number} of {template} takes its AMI from {found.image}, which names another AMI "
            "as soon as that parameter changes: a numbered version with a literal id is not made from it",
            hint="choose one: let instances go by the parameter alone, and name no launch template; or name "
            "a source version whose ImageId is an AMI's id, or that has none",
        )
    return found


def ensure_version(
    aws: Aws, template: str, image: str, source: int | None = None, root: RootVolume | None = None
) -> Version:
    """Return the numbered version with this AMI's literal id; make it of a source version if there is none.

    The source is the current default unless `source` names another. All else of it stays but the rate of
    `root`, and the default stays what it is. A second call makes no second version. Raises BakeError for a
    template or a source that is not there or goes by an SSM parameter, and if EC2 made something else than
    was asked for.
    """
    known = _known(aws, template)
    there = of_image(known, image)
    if there is not None and (root is None or root.is_within(there.data)):
        return there
    return make(aws, source_of(known, template, source), image, root)


def default_version(aws: Aws, template: str) -> Version:
    """The current default version; BakeError if there is no such template."""
    return source_of_default(_known(aws, template), template)


def source_of_default(known: list[Version], template: str) -> Version:
    """The default among these versions, also where its AMI is named by a parameter."""
    found = next((one for one in known if one.default), None)
    if found is None:
        raise BakeError(f"{template} tells no default version", hint="look at it in the EC2 console")
    return found


def set_default(aws: Aws, template: str, number: int, *, expected: int) -> None:
    """Make a version the default, where the default is still `expected`; nothing to do if it is the new one.

    Raises Changed if it is neither. EC2 has no conditional write: between the last look and the call lies a
    moment in which another's change is not seen, so the default is read back, too.
    """
    now = default_version(aws, template).number
    if now == number:
        return
    if now != expected:
        raise Changed(
            f"the default version of {template} is {now}, and was {expected}: somebody else changed it",
            hint=set_default_by_hand(aws, template, number, "if version {} is what you want"),
        )
    aws.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion=str(number))

    def shown() -> bool | None:
        return default_version(aws, template).number == number or None

    aws.wait(f"version {number} as the default of {template}", shown, timeout=SHOWN)


def set_default_by_hand(aws: Aws, template: str, number: int, when: str = "") -> str:
    """The command that does the same, whatever the default is; after `when`, where {} is the number."""
    what = ("--launch-template-id", template, "--default-version", str(number))
    command = aws.command("ec2", "modify-launch-template", *what)
    return f"{when.format(number)}: {command}" if when else command


def ensure_by_hand(
    aws: Aws, template: str, image: str, source: int | None, root: RootVolume | None = None
) -> str:
    """The command that makes a version with this AMI. With `root` it names no other disk of the source."""
    data = json.dumps({"ImageId": image, **(root.within({}) if root else {})}, separators=(",", ":"))
    what = ("--source-version", str(source or "$Default"), "--launch-template-data", data)
    return aws.command("ec2", "create-launch-template-version", "--launch-template-id", template, *what)


def _known(aws: Aws, template: str) -> list[Version]:
    known = versions(aws, template)
    if known is None:
        raise BakeError(
            f"there is no launch template {template} in {aws.region}",
            hint="templates are of one region: is it in another, or was it deleted?",
        )
    return known


def make(aws: Aws, source: Version, image: str, root: RootVolume | None = None) -> Version:
    """Make a version of a source version with this AMI's literal id; BakeError if EC2 made another one."""
    wanted = {**(root.within(source.data) if root else source.data), "ImageId": image}
    disks = {name: wanted[name] for name in ("BlockDeviceMappings",) if root}
    data = {"ImageId": image, **_lost_otherwise(source.data), **disks}
    answer = aws.ec2.create_launch_template_version(
        LaunchTemplateId=source.template,
        SourceVersion=str(source.number),
        VersionDescription=f"bake: {image}",
        LaunchTemplateData=data,  # type: ignore[arg-type]
        ClientToken=_token(source, image, root),
    )
    number = answer["LaunchTemplateVersion"]["VersionNumber"]
    told = [str(one.get("Message", "")) for one in answer.get("Warning", {}).get("Errors", [])]

    def shown() -> Version | None:
        return next((one for one in versions(aws, source.template) or () if one.number == number), None)

    made = aws.wait(f"version {number} of {source.template}", shown, timeout=SHOWN)
    _check(source, made, wanted)
    return Version(made.template, made.number, made.image, made.default, made.data, "; ".join(told))


def _lost_otherwise(data: Mapping[str, Any]) -> dict[str, Any]:
    """The disks of a source version, if a snapshot is among them: EC2 leaves snapshots out of copies.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateLaunchTemplateVersion.html
    """
    disks = data.get("BlockDeviceMappings", [])
    return (
        {"BlockDeviceMappings": disks} if any(one.get("Ebs", {}).get("SnapshotId") for one in disks) else {}
    )


def _token(source: Version, image: str, root: RootVolume | None) -> str:
    """The same for the same source, AMI and rate, so that a call that is sent twice makes one version."""
    text = " ".join((source.template, str(source.number), image, *([str(root.rate)] if root else [])))
    return f"bake-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _check(source: Version, made: Version, wanted: Mapping[str, Any]) -> None:
    """Compare what EC2 made with what was asked for: of its source, AMI and rate alone may differ."""
    if other := sorted(name for name in {*wanted, *made.data} if wanted.get(name) != made.data.get(name)):
        raise BakeError(
            f"version {made.number} of {source.template} differs from its source, version {source.number}, "
            f"in {', '.join(other)}",
            hint="nothing uses it yet: compare both in the EC2 console before anything is launched by it",
        )


def _version(raw: Any) -> Version:
    data = raw.get("LaunchTemplateData", {})
    return Version(
        raw["LaunchTemplateId"], raw["VersionNumber"], data.get("ImageId", ""), raw["DefaultVersion"], data
    )
