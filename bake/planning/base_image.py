"""The base AMI: found as the profile says, in the region where AMIs are looked up, and held against it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bake.aws import Aws, unanswered
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.systems import SYSTEMS


@dataclass(frozen=True)
class BaseImage:
    """The AMI to start from, as EC2 tells it.

    `root_gib` is the size of its root volume; `content_bytes` what is written on it, where EC2 tells that.
    """

    id: str
    name: str
    architecture: str
    root_device: str
    root_gib: int
    description: str = ""
    owner: str = ""
    created: str = ""
    snapshot: str = ""
    content_bytes: int | None = None


def find(profile: Profile, aws: Aws, findings: Findings) -> BaseImage | None:
    """The base AMI, with everything that speaks against it among the findings."""
    base = profile.base
    if base.ami is not None:
        image = _by_id(base.ami, "base.ami", aws, findings)
    elif base.ssm is not None:
        image = _by_parameter(base.ssm, aws, findings)
    else:
        image = _by_name(str(base.name), str(base.owner), aws, findings)
    if image is None:
        return None
    found = _read(image, _setting(profile), aws, findings)
    _check_system(profile, found, findings)
    return found


def _setting(profile: Profile) -> str:
    """The setting that names the AMI."""
    base = profile.base
    return "base.ami" if base.ami is not None else "base.ssm" if base.ssm is not None else "base.name"


def _by_id(ami: str, path: str, aws: Aws, findings: Findings) -> Any:
    images = _describe(ami, aws, findings)
    if images:
        return images[0]
    if aws.worker_region != aws.region and _describe(ami, aws.elsewhere(aws.worker_region), findings):
        findings.problem(
            path,
            f"{ami} exists in {aws.worker_region} (AWS_REGION) only; AMIs are looked up in "
            f"{aws.region} (SPOT_AWS_REGION)",
            "an AMI id belongs to one region: name the AMI of that region, or copy this one there yourself",
        )
        return None
    findings.problem(path, f"{ami} does not exist in {aws.region}, or is not shared with this account")
    return None


def _describe(ami: str, aws: Aws, findings: Findings) -> list[Any]:
    found = findings.look_up(lambda: aws.ec2.describe_images(ImageIds=[ami])["Images"], "InvalidAMI")
    return list(found or [])


def _by_parameter(name: str, aws: Aws, findings: Findings) -> Any:
    answer = findings.look_up(lambda: aws.ssm.get_parameter(Name=name), "ParameterNotFound")
    if answer is None:
        findings.problem("base.ssm", f"there is no SSM parameter {name} in {aws.region}")
        return None
    ami = str(answer["Parameter"]["Value"])
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", ami):
        findings.problem("base.ssm", f"the SSM parameter {name} holds no AMI id")
        return None
    return _by_id(ami, "base.ssm", aws, findings)


def _by_name(name: str, owner: str, aws: Aws, findings: Findings) -> Any:
    images = aws.ec2.describe_images(
        Owners=[owner],
        Filters=[{"Name": "name", "Values": [name]}, {"Name": "state", "Values": ["available"]}],
    )["Images"]
    if not images:
        findings.problem("base.name", f"{owner} has no AMI named {name!r} in {aws.region}")
        return None
    return max(images, key=lambda image: (image.get("CreationDate", ""), image["ImageId"]))


def _read(image: Any, path: str, aws: Aws, findings: Findings) -> BaseImage:
    ami, root = image["ImageId"], image.get("RootDeviceName", "")
    volumes = {
        mapping["DeviceName"]: mapping["Ebs"]
        for mapping in image.get("BlockDeviceMappings", [])
        if "Ebs" in mapping
    }
    if image.get("State") != "available":
        findings.problem(path, f"{ami} is {image.get('State')}, not available")
    if image.get("RootDeviceType", "ebs") != "ebs" or root not in volumes:
        findings.problem(path, f"{ami} has no EBS root volume; only EBS can be snapshotted (R-EBS)")
    more = [f"{name} ({ebs.get('VolumeSize', '?')} GiB)" for name, ebs in volumes.items() if name != root]
    if more:
        findings.problem(path, f"{ami} brings volumes that nobody agreed to: {', '.join(more)}")
    if _deprecated(image.get("DeprecationTime")):
        findings.warn(f"{ami} is deprecated since {image['DeprecationTime']}")
    ebs = volumes.get(root, {})
    snapshot = ebs.get("SnapshotId", "")
    return BaseImage(
        id=ami,
        name=image.get("Name", ""),
        architecture=image.get("Architecture", ""),
        root_device=root,
        root_gib=ebs.get("VolumeSize", 0),
        description=image.get("Description", ""),
        owner=image.get("ImageOwnerAlias") or image.get("OwnerId", ""),
        created=image.get("CreationDate", ""),
        snapshot=snapshot,
        content_bytes=_content(snapshot, aws),
    )


def _deprecated(time: str | None) -> bool:
    return time is not None and datetime.fromisoformat(time) < datetime.now(UTC)


def _content(snapshot: str, aws: Aws) -> int | None:
    """Bytes written on the root volume; EC2 tells them of snapshots that are ours to describe."""
    if not snapshot:
        return None
    try:
        found = aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    except Exception as error:
        if unanswered(error) is None:
            raise
        return None
    return found[0].get("FullSnapshotSizeInBytes") if found else None


def system_of(image: BaseImage) -> str | None:
    """The operating system that an AMI's name tells, else its description; None when neither does."""
    for text in (image.name, image.description):
        for name, system in SYSTEMS.items():
            if system.names.search(text):
                return name
    return None


def _check_system(profile: Profile, image: BaseImage, findings: Findings) -> None:
    told, said = system_of(image), profile.base.os
    named = f"{image.id} is called {image.name!r}"
    if told is None:
        findings.not_checked(
            f"the operating system of {image.id}", f"its name, {image.name!r}, does not tell"
        )
    elif told != said:
        findings.problem("base.os", f"the profile says {said}, but {named}, which is {told}")
    is_neuron = "neuron" in image.name.lower()
    if is_neuron and profile.base.accelerator == "cuda":
        findings.warn(f"{named}: made for Neuron, it may lack the NVIDIA driver that accelerator: cuda needs")
    if not is_neuron and profile.base.accelerator == "neuron":
        findings.warn(f"{named}: it may lack the Neuron driver that accelerator: neuron needs")
