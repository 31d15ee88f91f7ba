"""The limits of EBS's volume types, and what EC2 says of a volume outside them.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moto.ec2.exceptions import EC2ClientError


@dataclass(frozen=True)
class VolumeType:
    """One volume type: GiB from and to, IOPS from and to where they can be chosen, and at most a GiB.

    Boot volumes can't be of a type with `boots` False.
    """

    name: str
    gib: tuple[int, int]
    iops: tuple[int, int] | None = None
    iops_per_gib: int = 0
    boots: bool = True


VOLUME_TYPES: Mapping[str, VolumeType] = {
    one.name: one
    for one in (
        VolumeType("gp3", (1, 65536), (3000, 80000), 500),
        VolumeType("gp2", (1, 16384)),
        VolumeType("io1", (4, 16384), (100, 64000), 50),
        VolumeType("io2", (4, 65536), (100, 256000), 1000),
        VolumeType("st1", (125, 16384), boots=False),
        VolumeType("sc1", (125, 16384), boots=False),
        VolumeType("standard", (1, 1024)),
    )
}
INITIALIZATION_RATE = (100, 300)  # MiB/s from and to, of VolumeInitializationRate
GP3_IOPS, GP3_THROUGHPUT = 3000, (125, 2000)  # the defaults' IOPS; MiB/s from and to
_GP3_IOPS_PER_MIBS = 4


def check(kind: str, gib: int, iops: int | None, throughput: int | None, *, boot: bool = False) -> None:
    """Raise EC2ClientError unless EBS has such a volume; `iops` and MiB/s are None where none are asked."""
    if kind not in VOLUME_TYPES:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{kind[:200]}' for VolumeType.")
    of = VOLUME_TYPES[kind]
    low, high = of.gib
    if gib > high:
        raise _value(f"Volume of {gib}GiB is too large for volume type {kind}; maximum is {high}GiB.")
    if gib < low:
        raise _value(f"Volume of {gib}GiB is too small for volume type {kind}; minimum is {low}GiB.")
    if boot and not of.boots:
        raise _value(f"The volume type {kind} is not supported for boot volumes.")
    _check_iops(of, gib, iops)
    _check_throughput(kind, iops, throughput)


def check_initialization(rate: int | None, *, from_snapshot: bool) -> None:
    """Raise EC2ClientError unless EBS initializes a volume at so many MiB/s; None where none are asked."""
    if rate is None:
        return
    if not from_snapshot:
        raise _combined("VolumeInitializationRate is only supported for volumes created from snapshots.")
    low, high = INITIALIZATION_RATE
    if rate < low:
        raise _value(f"VolumeInitializationRate (MiBps) of {rate} is too low; minimum is {low}.")
    if rate > high:
        raise _value(f"VolumeInitializationRate (MiBps) of {rate} is too high; maximum is {high}.")


def _check_iops(of: VolumeType, gib: int, iops: int | None) -> None:
    if of.iops is None:
        if iops is not None:
            raise _combined(f"The parameter iops is not supported for {of.name} volumes.")
        return
    if iops is None:
        if of.name != "gp3":
            raise EC2ClientError(
                "MissingParameter", f"The parameter iops must be specified for {of.name} volumes."
            )
        return
    low, high = of.iops
    if iops < low:
        raise _value(f"Volume iops of {iops} is too low; minimum is {low}.")
    if iops > high:
        raise _value(f"Volume iops of {iops} is too high; maximum is {high}.")
    # What gp3 has at least is there at any size.
    if iops > gib * of.iops_per_gib and not (of.name == "gp3" and iops == GP3_IOPS):
        ratio, most = iops / gib, float(of.iops_per_gib)
        raise _combined(f"Iops to volume size ratio of {ratio:f} is too high; maximum is {most:f}")


def _check_throughput(kind: str, iops: int | None, throughput: int | None) -> None:
    if throughput is None:
        return
    if kind != "gp3":
        raise _combined(f"The parameter throughput is not supported for {kind} volumes.")
    low, high = GP3_THROUGHPUT
    if throughput < low:
        raise _value(f"Throughput (MiBps) of {throughput} is too low; minimum is {low}.")
    if throughput > high:
        raise _value(f"Throughput (MiBps) of {throughput} is too high; maximum is {high}.")
    ratio = throughput / (iops or GP3_IOPS)
    if ratio * _GP3_IOPS_PER_MIBS > 1:
        text = (
            f"Throughput (MiBps) to iops ratio of {ratio:f} is too high; maximum is 0.250000 MiBps per iops"
        )
        raise _combined(text)


def _value(message: str) -> EC2ClientError:
    return EC2ClientError("InvalidParameterValue", message)


def _combined(message: str) -> EC2ClientError:
    return EC2ClientError("InvalidParameterCombination", message)
