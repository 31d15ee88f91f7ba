"""Check that the account's vCPU quotas allow the builder and the boot check."""

from __future__ import annotations

from bake.account.facts import AccountFacts
from bake.account.instance_types import InstanceType
from bake.account.quotas import Quota, quota_class, quota_code
from bake.planning.findings import Findings
from bake.planning.hardware import setting
from bake.profile import Profile


def check(profile: Profile, types: tuple[InstanceType, ...], facts: AccountFacts, findings: Findings) -> None:
    """Check that the quota allows one more instance: the builder ends before the boot check starts."""
    market = profile.builder.market
    for shared in dict.fromkeys(quota_class(kind.name) for kind in types):
        if shared is None:
            continue
        kinds = [kind for kind in types if quota_class(kind.name) == shared]
        code = quota_code(shared, market)
        what = f"the {market} quota {code} of {', '.join(kind.name for kind in kinds)}"
        quota = findings.answered(what, facts.types.quotas[shared])
        if quota is None:
            continue
        for kind in kinds:
            _check_type(profile, kind, quota, code, facts.region, findings)


def _check_type(
    profile: Profile, kind: InstanceType, quota: Quota, code: str, region: str, findings: Findings
) -> None:
    limit, used = quota.limit, quota.used
    if kind.vcpus + used <= limit:
        findings.confirm(f"{kind.name} fits the quota: {kind.vcpus} vCPUs of {limit}, {used} in use")
        return
    findings.problem(
        setting(profile, kind.name),
        f"{kind.name} has {kind.vcpus} vCPUs, but the account's {profile.builder.market} quota in "
        f"{region} has {max(limit - used, 0)} left",
        f"{quota.name}: {limit}, running now: {used}",
        f"aws service-quotas request-service-quota-increase --region {region} --service-code ec2 "
        f"--quota-code {code} --desired-value {kind.vcpus + used}",
    )
