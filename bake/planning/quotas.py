"""vCPU quotas: whether the account may run the builder at all."""

from __future__ import annotations

import re
from typing import Any

from bake.aws import Aws
from bake.planning.findings import Findings
from bake.planning.hardware import InstanceType, setting
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


def quota_class(name: str) -> str | None:
    """The families that share a quota with this instance type."""
    return next((family for family, pattern in CLASSES.items() if pattern.fullmatch(name)), None)


def check(profile: Profile, types: tuple[InstanceType, ...], aws: Aws, findings: Findings) -> None:
    """The quota must hold one more instance: builder and boot check run one after the other."""
    classes = dict.fromkeys(quota_class(kind.name) for kind in types)
    for shared in classes:
        if shared is None:
            continue
        kinds = [kind for kind in types if quota_class(kind.name) == shared]
        _check_class(profile, shared, kinds, aws, findings)


def _check_class(
    profile: Profile, shared: str, kinds: list[InstanceType], aws: Aws, findings: Findings
) -> None:
    spot = profile.builder.market == "spot"
    code = CODES[shared][spot]
    what = f"the {profile.builder.market} quota {code} of {', '.join(kind.name for kind in kinds)}"
    answer = findings.ask(what, lambda: aws.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code))
    if answer is None:
        return
    limit = round(answer["Quota"]["Value"])
    used = _used(shared, spot, aws)
    for kind in kinds:
        if kind.vcpus + used <= limit:
            findings.confirm(f"{kind.name} fits the quota: {kind.vcpus} vCPUs of {limit}, {used} in use")
        else:
            findings.problem(
                setting(profile, kind.name),
                f"{kind.name} has {kind.vcpus} vCPUs, but the account's {profile.builder.market} quota in "
                f"{aws.region} has {max(limit - used, 0)} left",
                f"{answer['Quota'].get('QuotaName', code)}: {limit}, running now: {used}",
                f"aws service-quotas request-service-quota-increase --region {aws.region} --service-code ec2 "
                f"--quota-code {code} --desired-value {kind.vcpus + used}",
            )


def _used(shared: str, spot: bool, aws: Aws) -> int:
    """vCPUs of the running instances that count towards the same quota."""
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
