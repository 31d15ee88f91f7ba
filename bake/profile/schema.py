"""What a profile may say: one schema for checking, for the plan and for editors.

Every field that is the user's infrastructure (R-AGREE) is required: nothing about disks, region, instance
type, OS, network or AMI has a default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from bake.checks.result import Severity
from bake.profile import values, volumes
from bake.profile.accelerators import Neuron, Nvidia
from bake.profile.attesting import SigningKey
from bake.profile.channels import Channel, Channels, check_channels
from bake.profile.cold_start import ColdStart
from bake.profile.fleet import Fleet, check_fleet
from bake.profile.patterns import REMOVABLE
from bake.profile.proxy import ProxyCommand
from bake.profile.publishing import Publish
from bake.profile.rebuild import Rebuild
from bake.profile.review import CheckFile, Waiver
from bake.profile.section import Section, variable
from bake.profile.types import (
    AccountId,
    AmiId,
    EventBus,
    InstanceTypeName,
    Owner,
    Region,
    RoleArn,
    SecurityGroup,
    SsmParameter,
    SubnetId,
    Unit,
)
from bake.profile.weights import Weights
from bake.profile.worker import Worker
from bake.systems import SystemName


class Base(Section):
    """The AMI to start from; the user chooses it (R-AMI): by id, by SSM parameter, or by name and owner."""

    ami: AmiId | None = Field(None, json_schema_extra=variable("BASE_AMI_ID"))
    """The id of an AMI in the builder's region."""
    ssm: SsmParameter | None = None
    """An SSM parameter that holds an AMI id."""
    name: str | None = Field(None, min_length=3, max_length=128)
    """A name with `*`; the newest AMI of `owner` with such a name."""
    owner: Owner | None = Field(None, json_schema_extra=variable("BASE_AMI_OWNER", "amazon", "self"))
    """Who published the AMI called `name`."""
    follow: Literal["pinned", "propose", "newest"] | None = None
    """What a newer AMI of `ssm` or `name` is to a bake: nothing; a proposal, the default; or its base."""
    os: SystemName
    """The operating system of the AMI."""
    accelerator: Literal["cuda", "neuron", "cpu"]
    """What the model runs on."""
    updates: Literal["none", "security"] = "none"
    """What of its distribution is upgraded first: nothing, or what has pending security updates."""
    remove: tuple[Annotated[str, Field(json_schema_extra={"pattern": REMOVABLE})], ...] = Field(
        (), max_length=32
    )
    """What is removed from the AMI before the download, by name: cuda-12.6, docker-images (docs/fit.md)."""

    @field_validator("remove")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            values.removable(name)
        return value

    def conflicts(self) -> Iterator[str]:
        """Exactly one way to name the AMI, and an owner with a name: anybody may publish any name."""
        if len(set(self.remove)) < len(self.remove):
            yield "remove names something twice"
        ways = [key for key in ("ami", "ssm", "name") if getattr(self, key) is not None]
        if len(ways) != 1:
            yield f"needs exactly one of ami, ssm, or name with owner; has {' and '.join(ways) or 'none'}"
        if (self.name is None) != (self.owner is None):
            yield "name and owner go together: anybody may publish an AMI of any name"
        if self.ami is not None and self.follow is not None:
            yield "follow goes with ssm, or name and owner: an id has no newer AMI to follow"

    @property
    def family(self) -> str | None:
        """The AMIs of which the newest is looked up, in words; None where an id is named."""
        if self.ssm is not None:
            return f"ssm:{self.ssm}"
        return None if self.name is None else f"name {self.name} of {self.owner}"

    @property
    def following(self) -> str:
        """What a newer AMI of the family is to a bake."""
        return self.follow or "propose"


class Builder(Section):
    """The instance that bakes: the user's infrastructure, so nothing has a default but the market."""

    region: Region = Field(json_schema_extra=variable("SPOT_AWS_REGION"))
    """Where the AMI is made and the spot workers run."""
    instance_type: InstanceTypeName | None = None
    """The builder's instance type."""
    instance_types: tuple[InstanceTypeName, ...] | None = Field(None, min_length=1, max_length=8)
    """Instead of `instance_type`: alternatives, tried in this order."""
    market: Literal["spot", "on-demand"] = "on-demand"
    """How the builder is paid."""
    subnet: SubnetId = Field(json_schema_extra=variable("BAKE_SUBNET_ID"))
    """The builder's subnet."""
    security_group: SecurityGroup = Field(json_schema_extra=variable("BAKE_SECURITY_GROUP_ID", "temporary"))
    """A group that lets port 22 in from where `bake` runs; or `temporary`, with `ssh_from`."""
    ssh_from: str | None = Field(None, json_schema_extra=variable("BAKE_SSH_FROM"))
    """The network (CIDR, IPv4 or IPv6) that a temporary security group lets in on port 22."""
    address: Literal["auto", "public", "private"] = "auto"
    """The address that `bake` connects to. `auto`: the public one if there is one, else the private one."""
    proxy_command: ProxyCommand | None = Field(
        None, json_schema_extra=variable("BAKE_PROXY_COMMAND", optional=True)
    )
    """A command that leads to {port} of {host} or {instance}, such as by a bastion or Session Manager."""
    instance_profile: str = Field(
        min_length=1, max_length=128, json_schema_extra=variable("BAKE_INSTANCE_PROFILE")
    )
    """The name of the worker's instance profile: SQS, S3 and EventBridge."""
    cloud_init_wait_minutes: int = Field(10, ge=0, le=240, strict=True)
    """How long cloud-init may take on a new instance; what it still runs then is named."""
    package_wait_minutes: int = Field(20, ge=0, le=240, strict=True)
    """How long the base AMI's own upgrades may hold the package manager before the bake gives up."""
    lease_hours: Annotated[float | None, Unit("hours")] = Field(None, gt=0, le=168)
    """How long a bake may make no progress before all that it created counts as left over.

    Three times the estimate, and at least 2, without it. The builder ends itself then.
    """
    reaper: Literal["scheduler"] | None = None
    """What ends an instance that hangs, when the lease is over: a schedule of EventBridge Scheduler."""
    reaper_role: RoleArn | None = Field(None, json_schema_extra=variable("BAKE_REAPER_ROLE"))
    """The role (ARN) that the schedule takes to terminate it."""

    @field_validator("ssh_from")
    @classmethod
    def _network(cls, value: str | None) -> str | None:
        if value is not None:
            values.ssh_network(value)
        return value

    @field_validator("instance_profile")
    @classmethod
    def _name(cls, value: str) -> str:
        return values.instance_profile(value)

    def conflicts(self) -> Iterator[str]:
        """One type or a list of them; a temporary security group says whom it lets in."""
        if (self.instance_type is None) == (self.instance_types is None):
            yield "needs instance_type, or instance_types with the alternatives, and not both"
        if self.instance_types is not None and len(set(self.instance_types)) < len(self.instance_types):
            yield "instance_types names a type twice"
        if (self.security_group == "temporary") != (self.ssh_from is not None):
            yield "security_group: temporary and ssh_from (whom to let in on port 22) go together"
        if (self.reaper is None) != (self.reaper_role is None):
            yield "reaper: scheduler and reaper_role (the role that terminates what hangs) go together"
        if self.address == "private" and self.ssh_from and values.ssh_network(self.ssh_from).version == 6:
            yield "address: private is IPv4, and ssh_from lets IPv6 in alone: name an IPv4 network"

    @property
    def types(self) -> tuple[str, ...]:
        """The agreed instance types, in the order in which they are tried."""
        return self.instance_types or (self.instance_type or "",)


class RootVolume(Section):
    """The root EBS volume, of the builder and of the image (R-DISK): GiB, IOPS, MiB/s."""

    size_gib: Annotated[int, Unit("GiB")] = Field(ge=1, le=65536, strict=True)
    """Size in GiB. Nothing ever changes it but you."""
    type: Literal["gp2", "gp3", "io1", "io2"]
    """EBS volume type."""
    iops: Annotated[int | None, Unit("operations a second")] = Field(None, ge=100, le=256_000, strict=True)
    """Provisioned operations a second; gp3 has 3,000 without it."""
    throughput: Annotated[int | None, Unit("MiB/s")] = Field(None, ge=125, le=2000, strict=True)
    """Provisioned MiB/s, gp3 only; gp3 has 125 without it."""
    kms_key: str | None = Field(None, min_length=1, json_schema_extra=variable("BAKE_KMS_KEY"))
    """The key that encrypts the volume and the snapshot."""

    def conflicts(self) -> Iterator[str]:
        """What EC2 would refuse after the launch is refused here."""
        if self.throughput is not None and self.type != "gp3":
            yield f"throughput can be set for gp3 only, not for {self.type}"
        if self.iops is not None and self.type == "gp2":
            yield "iops can't be set for gp2"
        if self.iops is None and self.type in ("io1", "io2"):
            yield f"{self.type} needs iops"
        yield from volumes.refused(self.type, self.size_gib, self.iops, self.throughput)


class Image(Section):
    """What the AMI is called, and who may use it besides its owner."""

    name: str = Field(min_length=3, max_length=100)
    """The AMI's name; `{profile}` and `{run}` are filled in."""
    share_with: tuple[AccountId, ...] = Field(
        (), max_length=50, json_schema_extra=variable("BAKE_SHARE_WITH")
    )
    """Account ids that may launch the AMI; the model's licence binds them too."""
    keep: int | None = Field(None, ge=1, le=100, strict=True)
    """How many good images of this profile are kept."""
    keep_unproven: int = Field(2, ge=1, le=100, strict=True)
    """How many images are kept that nobody has proved yet, since something else ended their boot check."""

    @field_validator("name")
    @classmethod
    def _placeholders(cls, value: str) -> str:
        for placeholder in re.findall(r"\{[^}]*\}?|\}", value):
            if placeholder not in ("{profile}", "{run}"):
                raise ValueError(f"unknown placeholder {placeholder}; there are {{profile}} and {{run}}")
        # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
        if bad := re.search(r"[^A-Za-z0-9()\[\] ./'@_{}-]", value):
            raise ValueError(f"an AMI's name can't have the character {bad[0]!r}")
        return value


class Profile(Section):
    """A profile as the bake uses it: typed, complete, frozen."""

    name: str
    base: Base
    builder: Builder
    root_volume: RootVolume
    weights: Weights
    worker: Worker
    image: Image
    nvidia: Nvidia = Field(default_factory=Nvidia)
    neuron: Neuron = Field(default_factory=Neuron)
    rebuild: Rebuild = Field(default_factory=Rebuild)
    publish: Publish = Field(default_factory=Publish)
    cold_start: ColdStart = Field(default_factory=ColdStart)
    fleet: Fleet = Field(default_factory=Fleet)
    checks: tuple[CheckFile, ...] = Field((), max_length=32)
    """Test files, or folders of `test_*.py`, that run beside bake's own checks; relative to the profile."""
    waivers: tuple[Waiver, ...] = Field((), max_length=100)
    """Failures that somebody accepted, each until a day."""
    reports: str | None = Field(None, json_schema_extra=variable("BAKE_REPORTS", optional=True))
    """A bucket and prefix (s3://bucket/prefix) that a run's reports go to as well."""
    notices: EventBus | None = Field(None, json_schema_extra=variable("BAKE_NOTICES", optional=True))
    """An event bus in AWS_REGION that hears of images that were baked or promoted, and of failed bakes."""
    fail_on: Severity = "critical"
    """The severity from which a vulnerability that a scan finds counts as a failure."""
    attest: bool | None = Field(None, strict=True)
    """Whether the finished snapshot is read and attested; unset: in rehearsals, not on AWS."""
    signing_key: SigningKey | None = Field(
        None, json_schema_extra=variable("BAKE_SIGNING_KEY", optional=True)
    )
    """What signs attestations: a private key's path, or awskms: and a key's id, ARN or alias."""
    channels: Channels = Field(default_factory=dict, max_length=16)
    """Names for the AMI that is served, each an SSM parameter and a launch template (docs/channels.md)."""

    @field_validator("channels")
    @classmethod
    def _apart(cls, value: dict[str, Channel], info: ValidationInfo) -> dict[str, Channel]:
        published = info.data.get("publish") or Publish()
        check_channels(str(info.data.get("name", "")), value, published.parameter)
        return value

    @field_validator("reports")
    @classmethod
    def _bucket(cls, value: str | None) -> str | None:
        return values.bucket(value)

    def conflicts(self) -> Iterator[str]:
        """One waiver a check, and no rebuild for updates that the rebuild would not install."""
        waived = [waiver.check for waiver in self.waivers]
        if len(set(waived)) < len(waived):
            yield "waivers name a check twice"
        if self.rebuild.when_updates and self.base.updates == "none":
            yield "rebuild.when_updates needs base.updates"
        yield from check_fleet(self.fleet, self.worker_types, (self.builder.region, self.worker.region))

    @property
    def worker_types(self) -> tuple[str, ...]:
        """The instance types that the image is for: the builder's unless the profile names others."""
        return self.worker.types or self.builder.types


def sections() -> dict[str, type[Section]]:
    """The sections of a profile by name."""
    return {
        name: info.annotation
        for name, info in Profile.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
    }
