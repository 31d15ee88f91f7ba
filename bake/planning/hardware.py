"""Instance types as EC2 describes them; hardware is asked for, never looked up in a table here (R-HW)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bake.aws import Aws
from bake.planning.base_image import BaseImage
from bake.planning.findings import Findings
from bake.profile import Profile


@dataclass(frozen=True)
class Device:
    """The accelerators of an instance type: `count` of them, each with `memory_mib`."""

    kind: Literal["cuda", "neuron", "other"]
    name: str
    count: int
    memory_mib: int

    @property
    def total_mib(self) -> int:
        return self.count * self.memory_mib

    def __str__(self) -> str:
        return f"{f'{self.count} x ' if self.count > 1 else ''}{self.name} with {self.memory_mib:,} MiB"


@dataclass(frozen=True)
class InstanceType:
    """What DescribeInstanceTypes says. EBS and network are in MB/s (10^6 bytes); 0 where it says nothing."""

    name: str
    architectures: tuple[str, ...]
    vcpus: int
    memory_mib: int
    device: Device | None
    markets: tuple[str, ...]
    instance_store_gb: int
    ebs_baseline: float
    ebs_maximum: float
    network_baseline: float


@dataclass(frozen=True)
class Types:
    """A profile's instance types in their order: what bakes, and what the image is for. Often the same."""

    builder: tuple[InstanceType, ...]
    worker: tuple[InstanceType, ...]

    @property
    def all(self) -> tuple[InstanceType, ...]:
        """Each once, the builder's first."""
        return tuple(dict.fromkeys((*self.builder, *self.worker)))


def find(profile: Profile, aws: Aws, findings: Findings) -> Types:
    """The profile's instance types; one that is not in the region is a problem."""
    names = tuple(dict.fromkeys((*profile.builder.types, *profile.worker_types)))
    found = {kind.name: kind for kind in _describe(names, aws)}
    for name in names:
        if name not in found:
            findings.problem(setting(profile, name), f"{name} is not offered in {aws.region}")
    return Types(
        tuple(found[name] for name in profile.builder.types if name in found),
        tuple(found[name] for name in profile.worker_types if name in found),
    )


def family(name: str, aws: Aws) -> list[InstanceType]:
    """All types of the same family, the smallest memory first: `inf2.*` for inf2.xlarge."""
    pattern = f"{name.split('.')[0]}.*"
    answer = aws.ec2.describe_instance_types(Filters=[{"Name": "instance-type", "Values": [pattern]}])
    return sorted((_read(facts) for facts in answer["InstanceTypes"]), key=lambda kind: kind.memory_mib)


def check(
    profile: Profile,
    base: BaseImage,
    types: Types,
    zone: str | None,
    aws: Aws,
    findings: Findings,
) -> None:
    """Hold the types against architecture, accelerator, market, and what is offered in the subnet's zone."""
    for kind in types.all:
        if base.architecture not in kind.architectures:
            findings.problem(
                setting(profile, kind.name),
                f"{base.id} is {base.architecture}, but {kind.name} runs {', '.join(kind.architectures)}",
            )
        if profile.builder.market not in kind.markets:
            findings.problem("builder.market", f"{kind.name} can't be had as {profile.builder.market}")
    _check_devices(profile, types, findings)
    if zone is not None and types.all:
        _check_zone(profile, types.all, zone, aws, findings)


def setting(profile: Profile, name: str) -> str:
    """The setting that names an instance type, the builder's where both do."""
    return builder_setting(profile) if name in profile.builder.types else worker_setting(profile)


def builder_setting(profile: Profile) -> str:
    """The setting that says what bakes."""
    return _setting(profile, "builder")


def worker_setting(profile: Profile) -> str:
    """The setting that says what the image is for: the builder's types, unless there are others."""
    return _setting(profile, "worker" if profile.worker.types else "builder")


def _setting(profile: Profile, section: Literal["builder", "worker"]) -> str:
    one = getattr(profile, section).instance_type is not None
    return f"{section}.instance_type" if one else f"{section}.instance_types"


def _describe(names: tuple[str, ...], aws: Aws) -> list[InstanceType]:
    # By filter, not by id: an unknown name is left out of the answer instead of being an error for all.
    answer = aws.ec2.describe_instance_types(Filters=[{"Name": "instance-type", "Values": list(names)}])
    return [_read(facts) for facts in answer["InstanceTypes"]]


def _read(facts: Any) -> InstanceType:
    ebs = facts.get("EbsInfo", {}).get("EbsOptimizedInfo", {})
    cards = facts.get("NetworkInfo", {}).get("NetworkCards") or [{}]
    return InstanceType(
        name=facts["InstanceType"],
        architectures=tuple(facts.get("ProcessorInfo", {}).get("SupportedArchitectures", [])),
        vcpus=facts.get("VCpuInfo", {}).get("DefaultVCpus", 0),
        memory_mib=facts.get("MemoryInfo", {}).get("SizeInMiB", 0),
        device=device_of(facts),
        markets=tuple(facts.get("SupportedUsageClasses", [])),
        instance_store_gb=facts.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
        ebs_baseline=ebs.get("BaselineThroughputInMBps", 0.0),
        ebs_maximum=ebs.get("MaximumThroughputInMBps", 0.0),
        network_baseline=cards[0].get("BaselineBandwidthInGbps", 0.0) * 1000 / 8,
    )


def device_of(facts: Mapping[str, Any]) -> Device | None:
    """GPUs, else Neuron devices; inf1 and some more are told as inference accelerators only."""
    if gpus := facts.get("GpuInfo", {}).get("Gpus"):
        kind: Literal["cuda", "other"] = "cuda" if gpus[0].get("Manufacturer") == "NVIDIA" else "other"
        return _devices(kind, gpus)
    if devices := facts.get("NeuronInfo", {}).get("NeuronDevices"):
        return _devices("neuron", devices)
    if devices := facts.get("InferenceAcceleratorInfo", {}).get("Accelerators"):
        return _devices("neuron" if devices[0].get("Manufacturer") == "AWS" else "other", devices)
    return None


def _devices(kind: Literal["cuda", "neuron", "other"], devices: list[Any]) -> Device:
    first = devices[0]
    return Device(
        kind, first.get("Name", ""), first.get("Count", 1), first.get("MemoryInfo", {}).get("SizeInMiB", 0)
    )


def suits(profile: Profile, kind: InstanceType) -> bool:
    """Whether the type has the profile's accelerator; a CPU they all have."""
    wanted = profile.base.accelerator
    return wanted == "cpu" or (kind.device is not None and kind.device.kind == wanted)


def bakes_without(profile: Profile, types: Types) -> bool:
    """Whether the builder lacks the accelerator that the image is for."""
    return not any(suits(profile, kind) for kind in types.builder)


def lacking(profile: Profile) -> str:
    """The profile's accelerator as a thing that a machine has, or has not."""
    return {"cuda": "NVIDIA GPU", "neuron": "Neuron device", "cpu": "CPU"}[profile.base.accelerator]


def _check_devices(profile: Profile, types: Types, findings: Findings) -> None:
    for kind in types.worker:
        if not suits(profile, kind):
            _refuse(profile, kind, findings)
    without = [kind.name for kind in types.builder if not suits(profile, kind)]
    if profile.worker.types and 0 < len(without) < len(types.builder):
        findings.problem(
            builder_setting(profile),
            f"{', '.join(without)} has no {lacking(profile)}, and the others have one",
            "what is checked on the builder follows from that, so it must be the same for all of them",
        )


def _refuse(profile: Profile, kind: InstanceType, findings: Findings) -> None:
    """A type that the image can't be for. Whether it may bake all the same is the user's to say (R-AGREE)."""
    has = f"; it has {kind.device}" if kind.device else ""
    hint = (
        f"to bake on it an image for another type, name that one in worker.instance_type: what needs the "
        f"{lacking(profile)} is checked when the image boots there. `bake approve` agrees to it",
    )
    findings.problem(
        worker_setting(profile),
        f"{kind.name} has no {lacking(profile)}, which accelerator: {profile.base.accelerator} needs{has}",
        *(() if profile.worker.types else hint),
    )


def _check_zone(
    profile: Profile, types: tuple[InstanceType, ...], zone: str, aws: Aws, findings: Findings
) -> None:
    names = [kind.name for kind in types]
    answer = findings.ask(
        f"whether {', '.join(names)} is offered in {zone}",
        lambda: aws.ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": names}]
        ),
    )
    if answer is None:
        return
    zones: dict[str, list[str]] = {name: [] for name in names}
    for offering in answer["InstanceTypeOfferings"]:
        zones[offering["InstanceType"]].append(offering["Location"])
    for name, offered in zones.items():
        if zone in offered:
            findings.confirm(f"{name} is offered in {zone}, the subnet's zone")
        else:
            findings.problem(
                setting(profile, name),
                f"{name} is not offered in {zone}, the zone of {profile.builder.subnet}",
                f"it is offered in {', '.join(sorted(offered)) or 'no zone of this region'}",
            )
