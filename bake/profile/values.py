"""Check values that need more than a pattern, and say what to write instead: networks and names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from bake.profile.patterns import MIRROR, REMOVABLE

# The widest networks allowed, by IP version; nobody's own network is wider.
WIDEST = {4: 8, 6: 32}
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_InstanceProfile.html
IAM_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,128}")
_ARN = re.compile(r"arn:[a-z0-9-]+:([a-z0-9-]*):[^:]*:[^:]*:([a-z-]+)[/:](?:.*/)?([^/]+)")


def ssh_network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network that may reach port 22; ValueError says what is wrong, and what to write."""
    network = _network(value)
    widest = WIDEST[network.version]
    if network.prefixlen == 0:
        raise ValueError("must not open port 22 to everybody")
    if network.prefixlen < widest:
        raise ValueError(
            f"must be no wider than /{widest}: /{network.prefixlen} opens port 22 to "
            f"{network.num_addresses:,} addresses"
        )
    return network


def bucket(value: str | None) -> str | None:
    """A bucket with or without a prefix, or None; ValueError for anything else."""
    if value is not None and not re.fullmatch(MIRROR, value):
        raise ValueError("must be s3://bucket or s3://bucket/prefix, of plain letters")
    return value


def wrong_sides(sizes: Iterable[str]) -> str:
    """The sides that the worker can't draw, of sizes such as 1024x768: pixels, with commas; mostly empty."""
    sides = {int(side) for size in sizes for side in size.split("x")}
    return ", ".join(str(side) for side in sorted(sides) if not 256 <= side <= 1440 or side % 16)


def removable(value: str) -> None:
    """Raise ValueError unless this may name something on a base AMI; a path does not."""
    if not re.fullmatch(REMOVABLE, value):
        where = "where it lies, the machine tells"
        raise ValueError(f"must be names such as cuda-12.6, conda or docker-images, not {value}: {where}")


def _network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if "%" not in value:  # a zone is this machine's own
        try:
            return ipaddress.ip_network(value)
        except ValueError:
            pass
        try:
            whole = ipaddress.ip_network(value, strict=False)
        except ValueError:
            pass
        else:
            address = value.partition("/")[0]
            raise ValueError(
                f"is an address within a network: write {whole} for all of it, or "
                f"{address}/{whole.max_prefixlen} for the one address"
            )
    raise ValueError("must be an IPv4 or IPv6 network such as 203.0.113.7/32 or 2001:db8::7/128") from None


def instance_profile(value: str) -> str:
    """The instance profile's name; ValueError for ARNs, paths and names that IAM refuses."""
    arn = _ARN.fullmatch(value)
    if arn and arn[1] == "iam" and arn[2] == "role":
        raise ValueError(
            f"is the ARN of a role: write the name of an instance profile that has the role {arn[3]}"
        )
    if arn and arn[1] == "iam" and arn[2] == "instance-profile":
        raise ValueError(f"must be the instance profile's name, not its ARN: write {arn[3]}")
    if value.startswith("arn:"):
        raise ValueError("is an ARN, and not an instance profile's: write the name of an instance profile")
    if "/" in value:
        name = value.rstrip("/").rpartition("/")[2]
        what = f"write {name}" if IAM_NAME.fullmatch(name) else "write the last part"
        raise ValueError(f"must be the instance profile's name without its path: {what}")
    if wrong := sorted(set(re.findall(r"[^A-Za-z0-9_+=,.@-]", value))):
        shown = " ".join(map(repr, wrong))
        raise ValueError(f"must be of letters, digits and _+=,.@- as IAM's names are; it has {shown}")
    return value
