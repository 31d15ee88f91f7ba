"""Ask for the builder's subnet, security group and instance profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bake.account.answers import Unanswered, look_up, require
from bake.aws import Aws
from bake.profile import Profile

TEMPORARY = "temporary"  # the security group that a bake makes for itself


@dataclass(frozen=True)
class Subnet:
    """A subnet as EC2 describes it. `ipv6`: it has a block of IPv6 addresses, or will have one.

    `public`: it gives each instance a public IPv4 address.
    """

    vpc: str | None
    zone: str | None
    free_addresses: int | None
    ipv6: bool = False
    public: bool = True


@dataclass(frozen=True)
class Group:
    """A security group and the VPC that it belongs to. `ssh`: it lets somebody in on port 22."""

    vpc: str | None
    ssh: bool = True


@dataclass(frozen=True)
class InstanceProfile:
    """An instance profile, and whether it has a role, whose ARN is `role`."""

    has_role: bool
    role: str | None = None


def ask_subnet(profile: Profile, aws: Aws) -> Subnet | None:
    """Return the builder's subnet; None if it does not exist."""
    subnet = profile.builder.subnet
    found = look_up(lambda: aws.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"], "InvalidSubnet")
    if not found:
        return None
    facts = found[0]
    states = [
        block.get("Ipv6CidrBlockState", {}).get("State", "")
        for block in facts.get("Ipv6CidrBlockAssociationSet", [])
    ]
    return Subnet(
        vpc=facts.get("VpcId"),
        zone=facts.get("AvailabilityZone"),
        free_addresses=facts.get("AvailableIpAddressCount"),
        ipv6=not all(state.startswith(("disassociat", "fail")) for state in states),
        public=facts.get("MapPublicIpOnLaunch", True),
    )


def ask_group(profile: Profile, aws: Aws) -> Group | None:
    """Return the builder's security group; None if it does not exist, or if the bake creates its own."""
    group = profile.builder.security_group
    if group == TEMPORARY:
        return None
    found = look_up(
        lambda: aws.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"], "InvalidGroup"
    )
    if not found:
        return None
    return Group(found[0].get("VpcId"), any(map(_admits_ssh, found[0].get("IpPermissions", []))))


def _admits_ssh(rule: Any) -> bool:
    """Whether a rule lets in on port 22 from anywhere at all; a rule for all protocols has no ports."""
    sources = ("IpRanges", "Ipv6Ranges", "UserIdGroupPairs", "PrefixListIds")
    if not any(rule.get(source) for source in sources):
        return False
    protocol = rule.get("IpProtocol")
    return protocol == "-1" or (
        protocol in ("tcp", "6") and rule.get("FromPort", 0) <= 22 <= rule.get("ToPort", 65535)
    )


def ask_instance_profile(profile: Profile, aws: Aws) -> InstanceProfile | Unanswered | None:
    """Return the builder's instance profile; None if it does not exist."""
    name = profile.builder.instance_profile

    def get() -> InstanceProfile:
        found = aws.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        roles = found.get("Roles")
        return InstanceProfile(has_role=bool(roles), role=str(roles[0]["Arn"]) if roles else None)

    return require(get, "NoSuchEntity")
