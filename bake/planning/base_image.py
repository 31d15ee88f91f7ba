"""Check the base AMI against the profile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from bake.account.facts import AccountFacts
from bake.account.images import AMI_ID, Ami
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.systems import SYSTEMS

# Time to agree to another AMI, and to bake from it.
ENDS_SOON = timedelta(days=30)


@dataclass(frozen=True)
class BaseImage:
    """The AMI to start from, as EC2 describes it.

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


def find(profile: Profile, facts: AccountFacts, findings: Findings) -> BaseImage | None:
    """Return the base AMI; report what is wrong with it."""
    ami = facts.base.ami
    _tell_of_family(profile, facts, findings)
    if ami is None:
        _say_what_is_missing(profile, facts, findings)
        return None
    _check(setting(profile), ami, facts.asked, findings)
    root = ami.root
    found = BaseImage(
        id=ami.id,
        name=ami.name,
        architecture=ami.architecture,
        root_device=ami.root_device,
        root_gib=(root and root.gib) or 0,
        description=ami.description,
        owner=ami.owner,
        created=ami.created,
        snapshot=root.snapshot if root else "",
        content_bytes=ami.content_bytes,
    )
    _check_system(profile, found, findings)
    return found


def setting(profile: Profile) -> str:
    """Return the setting that names the AMI."""
    base = profile.base
    return "base.ami" if base.ami is not None else "base.ssm" if base.ssm is not None else "base.name"


def _say_what_is_missing(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    base, path, region = profile.base, setting(profile), facts.region
    id_ = base.ami or facts.base.parameter
    if facts.base.newest is not None:  # then it is pinned
        newest = facts.base.newest
        findings.problem(
            path,
            f"the agreed {facts.base.agreed_id} does not exist in {region} any more, or is not shared with "
            "this account",
            f"the newest of {base.family} is {_named(newest)}: base.follow: propose proposes it",
        )
    elif path == "base.name":
        findings.problem(path, f"{base.owner} has no AMI named {base.name!r} in {region}")
    elif id_ is None:
        findings.problem(path, f"there is no SSM parameter {base.ssm} in {region}")
    elif path == "base.ssm" and not AMI_ID.fullmatch(id_):
        findings.problem(path, f"the SSM parameter {base.ssm} holds no AMI id")
    elif facts.base.elsewhere:
        findings.problem(
            path,
            f"{id_} exists in {facts.worker_region} (AWS_REGION) only; AMIs are looked up in "
            f"{region} (SPOT_AWS_REGION)",
            "an AMI id belongs to one region: name the AMI of that region, or copy this one there yourself",
        )
    else:
        findings.problem(path, f"{id_} does not exist in {region}, or is not shared with this account")


def _check(path: str, ami: Ami, now: datetime, findings: Findings) -> None:
    if ami.state != "available":
        findings.problem(path, f"{ami.id} is {ami.state}, not available")
    if ami.root_device_type != "ebs" or ami.root is None:
        findings.problem(path, f"{ami.id} has no EBS root volume; only EBS can be snapshotted (R-EBS)")
    others = (volume for volume in ami.volumes if volume != ami.root)
    more = [f"{one.device} ({'?' if one.gib is None else one.gib} GiB)" for one in others]
    if more:
        findings.problem(path, f"{ami.id} brings volumes that nobody agreed to: {', '.join(more)}")
    if (ending := _ending(ami, now)) is not None:
        findings.warn(f"{ami.id} {ending}")


def _ending(ami: Ami, now: datetime) -> str | None:
    """Say that an AMI is deprecated, or soon will be; None if nothing of that is known."""
    if ami.deprecated is None:
        return None
    at = datetime.fromisoformat(ami.deprecated)
    if at <= now:
        return f"is deprecated since {ami.deprecated}"
    return f"will be deprecated on {ami.deprecated}: its owner ends it" if at - now <= ENDS_SOON else None


def _tell_of_family(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    """Say that the agreed AMI has gone or goes, and which is newer than what is used."""
    base, found = profile.base, facts.base
    if found.agreed_id is None or found.newest is None or found.newest.id == found.agreed_id:
        return
    newer = f"the newest of {base.family} is {_named(found.newest)}"
    if base.follow == "pinned":
        if found.agreed is not None:
            findings.warn(f"base.follow: pinned: {found.agreed_id} is used, and {newer}")
    elif found.agreed is None:
        findings.warn(f"the agreed {found.agreed_id} is not to be had any more; {newer}")
    elif found.agreed.state != "available":
        findings.warn(f"the agreed {found.agreed_id} is {found.agreed.state}; {newer}")
    elif (ending := _ending(found.agreed, facts.asked)) is not None:
        findings.warn(f"the agreed {found.agreed_id} {ending}; {newer}")


def _named(ami: Ami) -> str:
    return f"{ami.id} ({ami.name}, of {ami.created[:10]})"


def system_of(image: BaseImage) -> str | None:
    """Read the operating system from an AMI's name, else from its description; None if neither names one."""
    for text in (image.name, image.description):
        for name, system in SYSTEMS.items():
            if system.names.search(text):
                return name
    return None


def _check_system(profile: Profile, image: BaseImage, findings: Findings) -> None:
    told, said = system_of(image), profile.base.os
    named = f"{image.id} is called {image.name!r}"
    if told is None:
        findings.not_checked(f"the operating system of {image.id}", f"its name, {image.name!r}, does not say")
    elif told != said:
        findings.problem("base.os", f"the profile says {said}, but {named}, which is {told}")
    is_neuron = "neuron" in image.name.lower()
    if is_neuron and profile.base.accelerator == "cuda":
        findings.warn(f"{named}: made for Neuron, it may lack the NVIDIA driver that accelerator: cuda needs")
    if not is_neuron and profile.base.accelerator == "neuron":
        findings.warn(f"{named}: it may lack the Neuron driver that accelerator: neuron needs")
