"""Ask for the account's vCPU quotas, and how much of them is in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bake.account.answers import Unanswered, ask
from bake.aws import Aws
from bake.profile import Profile

# Families -> quota codes of `ec2` for (on-demand, spot); they count vCPUs.
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
CODES = {
    "g|gr|vt": ("L-DB2E81BA", "L-3819A6DF"),
    "inf": ("L-1945791B", "L-B5D1601B"),
    "trn": ("L-2C3B7624", "L-6B0D517C"),
    "p": ("L-417A185B", "L-7212CCBC"),
    "a|c|d|h|i|m|r|t|z": ("L-1216C47A", "L-34B43A08"),
}
CLASSES = {family: re.compile(rf"({family})\d.*") for family in CODES}


@dataclass(frozen=True)
class Quota:
    """A quota of vCPUs and how many of them running instances use."""

    name: str
    limit: int
    used: int


def quota_class(name: str) -> str | None:
    """Return the families that share a quota with this instance type."""
    return next((family for family, pattern in CLASSES.items() if pattern.fullmatch(name)), None)


def quota_code(shared: str, market: str) -> str:
    """The code of a class's quota in a market, "spot" or "on-demand"."""
    return CODES[shared][market == "spot"]


def ask_quotas(profile: Profile, aws: Aws) -> Mapping[str, Quota | Unanswered]:
    """Return the quota of each class that the profile's types belong to."""
    names = (*profile.builder.types, *profile.worker_types)
    classes = [shared for shared in dict.fromkeys(map(quota_class, names)) if shared is not None]
    return {shared: _ask(shared, profile.builder.market, aws) for shared in classes}


def _ask(shared: str, market: str, aws: Aws) -> Quota | Unanswered:
    code = quota_code(shared, market)
    answer = ask(lambda: aws.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code))
    if isinstance(answer, Unanswered):
        return answer
    quota = answer["Quota"]
    used = ask(lambda: _used(shared, market == "spot", aws))
    if isinstance(used, Unanswered):
        return used
    return Quota(quota.get("QuotaName", code), round(quota["Value"]), used)


def ended_lately(aws: Aws, instance_type: str) -> bool:
    """Whether an instance that shares this type's quota ends or has ended lately.

    It counts for minutes: https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
    """
    shared = quota_class(instance_type)
    pages = aws.ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-state-name", "Values": ["shutting-down", "terminated"]}]
    )
    types = (
        one["InstanceType"] for page in pages for group in page["Reservations"] for one in group["Instances"]
    )
    return any(quota_class(one) == shared for one in types)


def _used(shared: str, spot: bool, aws: Aws) -> int:
    """Count the vCPUs of running instances that use the same quota."""
    pages: Any = aws.ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    )
    total = 0
    for page in pages:
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                is_spot = instance.get("InstanceLifecycle") == "spot"
                if is_spot == spot and quota_class(instance["InstanceType"]) == shared:
                    options = instance.get("CpuOptions", {})
                    total += options.get("CoreCount", 0) * options.get("ThreadsPerCore", 0)
    return total
