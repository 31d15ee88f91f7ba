"""Find the address of a running instance that the profile asks for, and the command that leads there."""

from __future__ import annotations

from dataclasses import replace

from bake.aws import Aws
from bake.errors import BakeError, TimedOut
from bake.instance import describe
from bake.planning.reaching import Reach, give_public
from bake.ssh import Login

APPEARS = 60.0  # seconds for DescribeInstances to tell of an address after it told that the instance runs


class NoAddress(BakeError):
    """The instance has no address of the kind that the profile asks for."""


def locate(reach: Reach, aws: Aws, instance: str, login: Login) -> Login:
    """Return the login with the instance's present address, and the command that leads to it.

    To be called anew after each start of the instance: a stop takes its public address away.
    """

    def look() -> str | None:
        facts = describe(aws, instance)
        return reach.address_of(facts) if facts else None

    try:
        address = aws.wait(f"an address of {instance}", look, timeout=APPEARS)
    except TimedOut as error:
        raise _no_address(reach, instance) from error
    return replace(login, address=address, proxy=reach.command(instance, address, login.port))


def _no_address(reach: Reach, instance: str) -> NoAddress:
    where = f"{instance} in {reach.subnet}"
    if reach.address == "public" and reach.ipv6:
        return NoAddress(
            f"builder.address is public, and {where} has no IPv6 address, which builder.ssh_from lets in",
            hint=f"give {reach.subnet} an IPv6 block, or write an IPv4 network into builder.ssh_from",
        )
    if reach.address == "public":
        return NoAddress(
            f"builder.address is public, and {where} has no public IPv4 address",
            hint=f"let the subnet give it one: {give_public(reach.subnet)}; or write private, and have a way "
            "into the subnet (a VPN, builder.proxy_command)",
        )
    return NoAddress(
        f"builder.address is {reach.address}, and {where} has no {_kind(reach)}",
        hint=f"has {reach.subnet} an IPv4 block? Name a subnet in builder.subnet that has one",
    )


def _kind(reach: Reach) -> str:
    return "private IPv4 address" if reach.address == "private" else "address"
