"""Ask EC2 for the base AMI, and whether the new AMI's name is taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bake.account.answers import Unanswered, ask, look_up
from bake.aws import Aws
from bake.profile import Profile

AMI_ID = re.compile(r"ami-[0-9a-f]{8,17}")
# What run ids look like, for anything that must be measured before there is a run.
RUN = "20260101-000000-abcdef"


@dataclass(frozen=True)
class Volume:
    """An EBS volume of an AMI's block device mapping; `gib` is None where EC2 does not say."""

    device: str
    gib: int | None
    snapshot: str


@dataclass(frozen=True)
class Ami:
    """An AMI as DescribeImages returns it.

    `deprecated` is its DeprecationTime (RFC 3339). `content_bytes` is what is written on its root volume;
    None where the snapshot may not be described.
    """

    id: str
    name: str
    description: str
    architecture: str
    owner: str
    created: str
    state: str
    root_device: str
    root_device_type: str
    deprecated: str | None
    volumes: tuple[Volume, ...]
    content_bytes: int | None

    @property
    def root(self) -> Volume | None:
        """The root volume, where it is on EBS."""
        return next((volume for volume in self.volumes if volume.device == self.root_device), None)


@dataclass(frozen=True)
class BaseFacts:
    """The AMI that the bake starts from, or None with how far the search came.

    `parameter` is what the SSM parameter holds. `elsewhere`: the id exists in the worker's region only.
    `newest` is the newest AMI of the family, where the profile names one. `agreed_id` is the agreed id, if
    any, and `agreed` that AMI, unless it is not to be had any more.
    """

    ami: Ami | None
    parameter: str | None = None
    elsewhere: bool = False
    newest: Ami | None = None
    agreed: Ami | None = None
    agreed_id: str | None = None


def ask_base(profile: Profile, aws: Aws, agreed: str | None = None) -> BaseFacts:
    """Look the AMI up by id, SSM parameter or name, as the profile says; `agreed` is the agreed AMI's id.

    A profile that is pinned starts from that one; without one, from the newest of the family.
    """
    base = profile.base
    if base.ami is not None:
        return _by_id(base.ami, aws)
    found = _by_parameter(base.ssm, aws) if base.ssm else _by_name(str(base.name), str(base.owner), aws)
    if agreed is None:
        return replace(found, newest=found.ami)
    same = found.ami is not None and found.ami.id == agreed
    known = found.ami if same else _look(agreed, aws)
    ami = known if base.follow == "pinned" else found.ami
    return replace(found, ami=ami, newest=found.ami, agreed=known, agreed_id=agreed)


def _look(ami: str, aws: Aws) -> Ami | None:
    found = _describe(ami, aws)
    return _read(found, aws) if found else None


def _by_id(ami: str, aws: Aws, parameter: str | None = None) -> BaseFacts:
    if found := _describe(ami, aws):
        return BaseFacts(_read(found, aws), parameter)
    there = aws.worker_region != aws.region and _describe(ami, aws.elsewhere(aws.worker_region)) is not None
    return BaseFacts(None, parameter, elsewhere=there)


def _by_parameter(name: str, aws: Aws) -> BaseFacts:
    answer = look_up(lambda: aws.ssm.get_parameter(Name=name), "ParameterNotFound")
    if answer is None:
        return BaseFacts(None)
    value = str(answer["Parameter"]["Value"])
    return _by_id(value, aws, value) if AMI_ID.fullmatch(value) else BaseFacts(None, value)


def _by_name(name: str, owner: str, aws: Aws) -> BaseFacts:
    images = aws.ec2.describe_images(
        Owners=[owner],
        Filters=[{"Name": "name", "Values": [name]}, {"Name": "state", "Values": ["available"]}],
    )["Images"]
    if not images:
        return BaseFacts(None)
    newest = max(images, key=lambda image: (image.get("CreationDate", ""), image["ImageId"]))
    return BaseFacts(_read(newest, aws))


def _describe(ami: str, aws: Aws) -> Mapping[str, Any] | None:
    found = look_up(lambda: aws.ec2.describe_images(ImageIds=[ami])["Images"], "InvalidAMI")
    return found[0] if found else None


def _read(image: Mapping[str, Any], aws: Aws) -> Ami:
    root = image.get("RootDeviceName", "")
    volumes = tuple(
        Volume(mapping["DeviceName"], mapping["Ebs"].get("VolumeSize"), mapping["Ebs"].get("SnapshotId", ""))
        for mapping in image.get("BlockDeviceMappings", [])
        if "Ebs" in mapping
    )
    snapshot = next((volume.snapshot for volume in volumes if volume.device == root), "")
    return Ami(
        id=image["ImageId"],
        name=image.get("Name", ""),
        description=image.get("Description", ""),
        architecture=image.get("Architecture", ""),
        owner=image.get("ImageOwnerAlias") or image.get("OwnerId", ""),
        created=image.get("CreationDate", ""),
        state=str(image.get("State")),
        root_device=root,
        root_device_type=image.get("RootDeviceType", "ebs"),
        deprecated=image.get("DeprecationTime"),
        volumes=volumes,
        content_bytes=_content(snapshot, aws),
    )


def _content(snapshot: str, aws: Aws) -> int | None:
    """Bytes written on the root volume. EC2 knows them for snapshots that this account may describe."""
    if not snapshot:
        return None
    found = ask(lambda: aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"])
    if isinstance(found, Unanswered) or not found:
        return None
    return found[0].get("FullSnapshotSizeInBytes")


def name_of(profile: str, template: str, run: str) -> str:
    """Fill `{profile}` and `{run}` into the AMI's name. Nothing else in it is special."""
    filled = {"{profile}": profile, "{run}": run}
    return re.sub(r"\{profile\}|\{run\}", lambda match: filled[match[0]], template)


def ask_name(profile: Profile, aws: Aws) -> str | Unanswered | None:
    """Return the id of this account's AMI that already has the name; None if there is none.

    A name with `{run}` in it is not asked about, since it is new with each run.
    """
    if "{run}" in profile.image.name:
        return None
    name = name_of(profile.name, profile.image.name, RUN)
    found = ask(
        lambda: aws.ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])
    )
    if isinstance(found, Unanswered):
        return found
    return found["Images"][0]["ImageId"] if found["Images"] else None
