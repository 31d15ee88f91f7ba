"""How the bake reaches its instances: at which address, and through which command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from bake.account.facts import AccountFacts
from bake.planning.findings import Findings
from bake.planning.sources import Sources
from bake.profile import Profile, proxy
from bake.profile.values import ssh_network


@dataclass(frozen=True)
class Reach:
    """How the instances in `subnet` are reached; `proxy` is the command, empty where there is none.

    `ipv6`: the security group lets IPv6 in, and nothing else.
    """

    address: Literal["auto", "public", "private"]
    subnet: str
    ipv6: bool = False
    proxy: tuple[str, ...] = ()

    @classmethod
    def of(cls, profile: Profile, sources: Sources) -> Reach:
        """Take from the profile what concerns it, but for what can't be rehearsed."""
        builder = profile.builder
        six = builder.ssh_from is not None and ssh_network(builder.ssh_from).version == 6
        command = () if _is_not_rehearsed(profile, sources) else builder.proxy_command or ()
        return cls(builder.address, builder.subnet, six, command)

    def address_of(self, facts: Mapping[str, Any]) -> str | None:
        """Choose among the addresses that DescribeInstances tells of an instance; None if it has no such.

        The command of a bastion or of AWS leads into the VPC: for it `auto` is the private address.
        """
        public, private = facts.get("PublicIpAddress"), facts.get("PrivateIpAddress")
        six = facts.get("Ipv6Address")
        match self.address:
            case "public":
                order = [six if self.ipv6 else public]
            case "private":
                order = [private]
            case "auto":
                order = [six if self.ipv6 else None, None if self.proxy else public, private, six]
        return next((address for address in order if address), None)

    def command(self, instance: str, address: str, port: int) -> tuple[str, ...]:
        """The command that leads to an instance; empty where none is needed."""
        return proxy.filled(self.proxy, instance=instance, host=address, port=port)


def check(profile: Profile, sources: Sources, facts: AccountFacts, findings: Findings) -> None:
    """Check that the subnet gives the address that is asked for, and that the command is on this machine."""
    builder, subnet = profile.builder, facts.network.subnet
    reach = Reach.of(profile, sources)
    if subnet and builder.address == "public" and not reach.ipv6 and not subnet.public:
        findings.problem(
            "builder.address",
            f"public, and {builder.subnet} gives its instances no public IPv4 address",
            f"let it: {give_public(builder.subnet)}",
            "or write private, and have a way into the subnet, such as builder.proxy_command",
        )
    if _is_not_rehearsed(profile, sources):
        findings.warn(
            "builder.proxy_command is not rehearsed: what it asks for AWS is not on the local cloud, whose "
            "machines are reached directly"
        )
    elif program := facts.network.program:
        _check_program(program.name, program.path, findings)


def give_public(subnet: str) -> str:
    """The command that lets a subnet give public addresses."""
    return f"aws ec2 modify-subnet-attribute --subnet-id {subnet} --map-public-ip-on-launch"


def _check_program(name: str, path: str | None, findings: Findings) -> None:
    if path is None:
        findings.problem(
            "builder.proxy_command",
            f"there is no program {name} on this machine, by which the builder would be reached",
            "install it, or have PATH lead to it",
        )
    else:
        findings.confirm(f"builder.proxy_command is there: {path}")


def _is_not_rehearsed(profile: Profile, sources: Sources) -> bool:
    command = profile.builder.proxy_command
    return command is not None and PurePath(command[0]).name in sources.not_rehearsed
