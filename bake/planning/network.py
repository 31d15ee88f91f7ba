"""Check the builder's network: subnet, VPC, zone, security group, instance profile."""

from __future__ import annotations

from dataclasses import dataclass

from bake.account.answers import Unanswered
from bake.account.facts import AccountFacts
from bake.account.network import TEMPORARY, InstanceProfile, Subnet
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.profile.values import ssh_network


@dataclass(frozen=True)
class Network:
    """The builder's network. None is what is unknown."""

    subnet: str
    vpc: str | None
    zone: str | None
    security_group: str
    free_addresses: int | None = None


def find(profile: Profile, facts: AccountFacts, findings: Findings) -> Network:
    """Return the builder's network; report what does not exist or does not belong together."""
    builder, subnet = profile.builder, facts.network.subnet
    if subnet is None:
        findings.problem("builder.subnet", f"{builder.subnet} does not exist in {facts.region}")
    else:
        _check_subnet(profile, subnet, findings)
    vpc = subnet.vpc if subnet else None
    if builder.security_group != TEMPORARY:
        _check_group(builder.security_group, facts, vpc, findings)
    _check_instance_profile(builder.instance_profile, facts.network.instance_profile, findings)
    return Network(
        builder.subnet,
        vpc,
        subnet.zone if subnet else None,
        builder.security_group,
        subnet.free_addresses if subnet else None,
    )


def _check_subnet(profile: Profile, subnet: Subnet, findings: Findings) -> None:
    builder = profile.builder
    if subnet.free_addresses == 0:
        findings.problem("builder.subnet", f"{builder.subnet} has no free address")
    if builder.ssh_from and ssh_network(builder.ssh_from).version == 6 and not subnet.ipv6:
        findings.problem(
            "builder.ssh_from",
            f"{builder.ssh_from} is an IPv6 network, and {builder.subnet} has no IPv6 addresses to reach",
            "name an IPv4 network, or a subnet with an IPv6 block",
        )


def _check_group(name: str, facts: AccountFacts, vpc: str | None, findings: Findings) -> None:
    group = facts.network.group
    if group is None:
        findings.problem("builder.security_group", f"{name} does not exist in {facts.region}")
    elif vpc is not None and group.vpc != vpc:
        findings.problem("builder.security_group", f"{name} is in {group.vpc}, but the subnet is in {vpc}")
    else:
        findings.confirm(f"{name} is in the subnet's VPC")


def _check_instance_profile(
    name: str, answer: InstanceProfile | Unanswered | None, findings: Findings
) -> None:
    found = findings.required("builder.instance_profile", f"instance profile {name} in this account", answer)
    if found is None:
        return
    if found.has_role:
        findings.confirm(f"the instance profile {name} exists and has a role")
    else:
        findings.problem("builder.instance_profile", f"{name} has no role: the worker could do nothing")
