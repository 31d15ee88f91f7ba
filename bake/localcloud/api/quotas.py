"""The account's quotas of vCPUs: what Service Quotas answers for EC2, and what RunInstances goes by.

Names and codes are AWS's. The values are this table's: AWS gives new accounts none of most of them.
https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES

_STANDARD = "Standard (A, C, D, H, I, M, R, T, Z)"


@dataclass(frozen=True)
class Quota:
    """A quota that the instance types of some families share on one market."""

    code: str
    name: str
    families: str
    spot: bool

    def counts(self, instance_type: str, *, spot: bool) -> bool:
        """Whether instances of a type on a market use it."""
        return spot == self.spot and re.fullmatch(rf"({self.families})\d.*", instance_type) is not None


QUOTAS = (
    Quota("L-DB2E81BA", "Running On-Demand G and VT instances", "g|gr|vt", spot=False),
    Quota("L-3819A6DF", "All G and VT Spot Instance Requests", "g|gr|vt", spot=True),
    Quota("L-417A185B", "Running On-Demand P instances", "p", spot=False),
    Quota("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", "p", spot=True),
    Quota("L-1945791B", "Running On-Demand Inf instances", "inf", spot=False),
    Quota("L-B5D1601B", "All Inf Spot Instance Requests", "inf", spot=True),
    Quota("L-2C3B7624", "Running On-Demand Trn instances", "trn", spot=False),
    Quota("L-6B0D517C", "All Trn Spot Instance Requests", "trn", spot=True),
    Quota("L-1216C47A", f"Running On-Demand {_STANDARD} instances", "a|c|d|h|i|m|r|t|z", spot=False),
    Quota("L-34B43A08", f"All {_STANDARD} Spot Instance Requests", "a|c|d|h|i|m|r|t|z", spot=True),
)


def quota_of(instance_type: str, *, spot: bool) -> Quota | None:
    """The quota that an instance uses; None for types that no quota here counts."""
    return next((quota for quota in QUOTAS if quota.counts(instance_type, spot=spot)), None)


def vcpus(instance_type: str) -> int:
    """The vCPUs of a type; 0 for an unknown one."""
    return int(INSTANCE_TYPES.get(instance_type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))


def check(instance_type: str, count: int, *, spot: bool, counted: Iterable[Any], limit: int) -> None:
    """Refuse instances beyond their quota as EC2 does; `counted` are moto's instances that use quotas."""
    quota = quota_of(instance_type, spot=spot)
    if quota is None:
        return
    used = sum(
        vcpus(one.instance_type)
        for one in counted
        if quota.counts(one.instance_type, spot=one.lifecycle == "spot")
    )
    if used + count * vcpus(instance_type) <= limit:
        return
    if spot:
        raise EC2ClientError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    raise EC2ClientError(
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the "
        "instance bucket that the specified instance type belongs to. Please visit "
        "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
    )


def described(quota: Quota, limit: int, region: str, account: str) -> Mapping[str, Any]:
    """A quota as Service Quotas tells it."""
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:aws:servicequotas:{region}:{account}:ec2/{quota.code}",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": float(limit),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
