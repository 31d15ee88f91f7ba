"""The builder's network: subnet, VPC, zone, security group, instance profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bake.aws import Aws
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.profile.values import ssh_network

TEMPORARY = "temporary"


@dataclass(frozen=True)
class Network:
    """Where the builder stands; None is what could not be found out."""

    subnet: str
    vpc: str | None
    zone: str | None
    security_group: str
    free_addresses: int | None = None


def find(profile: Profile, aws: Aws, findings: Findings) -> Network:
    """Look up what the profile names; what is not there, or does not belong together, is a problem."""
    builder = profile.builder
    subnet = _subnet(builder.subnet, aws, findings)
    vpc, zone = (subnet.get("VpcId"), subnet.get("AvailabilityZone")) if subnet else (None, None)
    free = subnet.get("AvailableIpAddressCount") if subnet else None
    if free == 0:
        findings.problem("builder.subnet", f"{builder.subnet} has no free address")
    if subnet and builder.ssh_from and ssh_network(builder.ssh_from).version == 6:
        _check_ipv6(subnet, builder.ssh_from, findings)
    if builder.security_group != TEMPORARY:
        _check_group(builder.security_group, vpc, aws, findings)
    _check_instance_profile(builder.instance_profile, aws, findings)
    return Network(builder.subnet, vpc, zone, builder.security_group, free)


def _subnet(subnet: str, aws: Aws, findings: Findings) -> Any:
    found = findings.look_up(lambda: aws.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"], "InvalidSubnet")
    if not found:
        findings.problem("builder.subnet", f"{subnet} does not exist in {aws.region}")
        return None
    return found[0]


def _check_ipv6(subnet: Any, ssh_from: str, findings: Findings) -> None:
    blocks = subnet.get("Ipv6CidrBlockAssociationSet", [])
    states = [block.get("Ipv6CidrBlockState", {}).get("State", "") for block in blocks]
    if all(state.startswith(("disassociat", "fail")) for state in states):
        findings.problem(
            "builder.ssh_from",
            f"{ssh_from} is an IPv6 network, and {subnet['SubnetId']} has no IPv6 addresses to reach",
            "name an IPv4 network, or a subnet with an IPv6 block",
        )


def _check_group(group: str, vpc: str | None, aws: Aws, findings: Findings) -> None:
    found = findings.look_up(
        lambda: aws.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"], "InvalidGroup"
    )
    if not found:
        findings.problem("builder.security_group", f"{group} does not exist in {aws.region}")
    elif vpc is not None and found[0].get("VpcId") != vpc:
        findings.problem(
            "builder.security_group",
            f"{group} is in {found[0].get('VpcId')}, but the subnet is in {vpc}",
        )
    else:
        findings.confirm(f"{group} is in the subnet's VPC")


def _check_instance_profile(name: str, aws: Aws, findings: Findings) -> None:
    answer = findings.require(
        "builder.instance_profile",
        f"instance profile {name} in this account",
        lambda: aws.iam.get_instance_profile(InstanceProfileName=name),
        "NoSuchEntity",
    )
    if answer is None:
        return
    if answer["InstanceProfile"].get("Roles"):
        findings.confirm(f"the instance profile {name} is there and has a role")
    else:
        findings.problem("builder.instance_profile", f"{name} has no role: the worker could do nothing")
