"""What a root volume and an instance type's link to EBS give, in MB/s (10^6 bytes)."""

from __future__ import annotations

from dataclasses import dataclass

from bake.account.instance_types import InstanceType
from bake.profile.schema import RootVolume

MIB_PER_S = 1.048576  # MB/s


@dataclass(frozen=True)
class Reading:
    """MB/s at which an instance reads a volume that is filled, and what limits it."""

    mb_per_s: float
    limit: str


def throughput(volume: RootVolume) -> float:
    """MB/s of a volume. https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html"""
    iops = volume.iops or 0
    mib = {
        "gp3": volume.throughput or 125,
        # Up to 170 GiB; larger ones reach 250 MiB/s, below 334 GiB while their burst credits last.
        "gp2": 128 if volume.size_gib <= 170 else 250,
        # 256 KiB an operation up to 500 MiB/s, beyond 32,000 IOPS 16 KiB an operation up to 1,000 MiB/s.
        "io1": min(iops / 4, 500) if iops <= 32_000 else min(iops / 64, 1000),
        "io2": min(iops / 4, 4000),
    }[volume.type]
    return mib * MIB_PER_S


def steadily(volume: RootVolume, kind: InstanceType) -> float:
    """MB/s between the volume and an instance of this type for hours: the lower of both limits."""
    return min(throughput(volume), kind.ebs_baseline or throughput(volume))


def at_start(volume: RootVolume, kind: InstanceType) -> Reading:
    """MB/s of a new instance: its type's burst lasts half an hour at least once a day.

    https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-type-specifications.html
    """
    gives, takes = throughput(volume), max(kind.ebs_maximum, kind.ebs_baseline)
    if 0 < takes < gives:
        return Reading(takes, f"{kind.name}'s EBS limit")
    return Reading(gives, f"the volume's throughput ({volume.type})")
