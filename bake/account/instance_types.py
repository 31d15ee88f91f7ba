"""Ask EC2 for instance types; hardware is never looked up in a table of our own (R-HW)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bake.account.answers import Unanswered, ask
from bake.aws import Aws
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
    """An instance type as EC2 describes it. EBS and network are in MB/s (10^6 bytes); 0 if unknown."""

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
    network_peak: float = 0.0


def ask_types(profile: Profile, aws: Aws) -> Mapping[str, InstanceType]:
    """Return the profile's types by name, and all types of the workers' families: alternatives if one is
    too small. A type that the region does not offer is missing.
    """
    patterns = dict.fromkeys(f"{family_of(name)}.*" for name in profile.worker_types)
    others = [name for name in dict.fromkeys(profile.builder.types) if f"{family_of(name)}.*" not in patterns]
    return ask_named(aws, (*patterns, *others))


def ask_named(aws: Aws, names: Sequence[str]) -> Mapping[str, InstanceType]:
    """Return the types with these names, wildcards included; what the region lacks is missing."""
    # By filter, not by id: an unknown name is left out of the answer instead of being an error for all.
    pages: Any = aws.ec2.get_paginator("describe_instance_types").paginate(
        Filters=[{"Name": "instance-type", "Values": list(names)}]
    )
    found = (_read(facts) for page in pages for facts in page["InstanceTypes"])
    return {kind.name: kind for kind in found}


def family_of(name: str) -> str:
    """`inf2` for inf2.xlarge."""
    return name.split(".")[0]


def ask_zones(profile: Profile, aws: Aws) -> Mapping[str, tuple[str, ...]] | Unanswered:
    """Return the zones of the region that offer each of the profile's types."""
    names = list(dict.fromkeys((*profile.builder.types, *profile.worker_types)))
    answer = ask(
        lambda: aws.ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": names}]
        )["InstanceTypeOfferings"]
    )
    if isinstance(answer, Unanswered):
        return answer
    zones: dict[str, list[str]] = {name: [] for name in names}
    for offering in answer:
        zones[offering["InstanceType"]].append(offering["Location"])
    return {name: tuple(sorted(offered)) for name, offered in zones.items()}


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
        network_peak=cards[0].get("PeakBandwidthInGbps", 0.0) * 1000 / 8,
    )


def device_of(facts: Mapping[str, Any]) -> Device | None:
    """Read GPUs, else Neuron devices. EC2 lists inf1 and some others as inference accelerators only."""
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
