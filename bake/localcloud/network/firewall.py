"""The packet rules of one local cloud (nftables). Traffic that no rule here allows is refused.

- Instances reach the cloud's servers, name servers and package sources on this host, and other hosts; no
  other port of this host, not this host's metadata, and each other where a security group allows it.
- Root and the cloud's owner reach the servers, and instances by SSH or as a security group allows.
- Nobody else reaches anything: no other user of this host, and no neighbour that routes through it.
- An instance sends IPv4 only, and only from its own address, by which the metadata service knows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bake.localcloud import host
from bake.localcloud.settings import IMDS_PORT, METADATA_ADDRESS, SERVED, Settings


@dataclass(frozen=True)
class Opening:
    """Traffic that a security group allows, from a network to an instance; `ports` are first and last.

    `protocol` is tcp, udp, icmp, a number, or -1 for all; without `ports` all ports are allowed.
    """

    source: str
    address: str
    protocol: str
    ports: tuple[int, int] | None = None

    def rule(self) -> str:
        """The rule in nftables' syntax."""
        ends = f"ip saddr {self.source} ip daddr {self.address}"
        match self.protocol, self.ports:
            case "tcp" | "udp", (first, last):
                return f"{ends} {self.protocol} dport {first}-{last} accept"
            case "-1", _:
                return f"{ends} accept"
            case _:
                return f"{ends} meta l4proto {self.protocol} accept"


def up(settings: Settings, name_servers: Sequence[str], sources: Iterable[tuple[str, int]] = ()) -> None:
    """Install the rules; `sources` are addresses and ports of package sources, also those on this host."""
    host.run("nft", "-f", "-", stdin=_rules(settings, name_servers, sources))


def down(settings: Settings) -> None:
    """Remove the rules, if any."""
    for family in ("ip", "netdev"):
        host.run("nft", "delete", "table", family, settings.table, check=False)


def open_only(settings: Settings, openings: Iterable[Opening]) -> None:
    """Replace the openings of the security groups by these."""
    rules = "".join(
        f"add rule ip {settings.table} groups {one.rule()}\n" for one in sorted(set(openings), key=repr)
    )
    host.run("nft", "-f", "-", stdin=f"flush chain ip {settings.table} groups\n{rules}")


def guard(settings: Settings, interface: str, address: str, mac: str) -> None:
    """Accept from an instance's interface only packets from its own addresses."""
    rules = f"""
table netdev {settings.table} {{
  chain {interface} {{
    type filter hook ingress device "{interface}" priority filter; policy drop;
    ether saddr != {mac} drop
    ether type arp arp saddr ether {mac} arp saddr ip {{ {address}, 0.0.0.0 }} accept
    ip saddr {address} accept
  }}
}}
"""
    host.run("nft", "-f", "-", stdin=rules)


def unguard(settings: Settings, interface: str) -> None:
    """Remove the rules of an instance's interface, if any."""
    host.run("nft", "delete", "chain", "netdev", settings.table, interface, check=False)


def tables() -> list[str]:
    """All nftables tables, each as family and name."""
    return [line.removeprefix("table ") for line in host.run("nft", "list", "tables").splitlines()]


def _rules(settings: Settings, name_servers: Sequence[str], sources: Iterable[tuple[str, int]]) -> str:
    bridge, network, address = settings.bridge, settings.network, settings.address
    users = ", ".join(map(str, sorted({0, settings.owner})))
    ports = ", ".join(map(str, SERVED))
    own = "".join(
        f"    ip daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept\n" for server in name_servers
    )
    own += "".join(
        f"    ip daddr {source} tcp dport {port} accept\n" for source, port in sorted(set(sources))
    )
    return f"""
table ip {settings.table} {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{bridge}" ip daddr {METADATA_ADDRESS} tcp dport 80 dnat to {address}:{IMDS_PORT}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} ip daddr != {network} masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{bridge}" goto from_instances
    iifname != "lo" ip daddr {network} drop
  }}
  chain from_instances {{
    ct state established,related accept
    ip daddr {address} ct status dnat tcp dport {IMDS_PORT} accept
    ip daddr {address} tcp dport {{ {ports} }} accept
    ip daddr {address} icmp type echo-request accept
{own}    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    # The host may itself be a cloud instance: its metadata stays out of reach.
    iifname "{bridge}" ip daddr 169.254.0.0/16 reject
    oifname "{bridge}" ct state established,related accept
    iifname "{bridge}" oifname "{bridge}" jump groups
    oifname "{bridge}" drop
  }}
  chain groups {{
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    ip daddr {network} goto from_host
  }}
  chain from_host {{
    ct state established,related accept
    meta skuid {{ {users} }} ip daddr {address} accept
    meta skuid {{ {users} }} tcp dport 22 accept
    meta skuid {{ {users} }} meta l4proto icmp accept
    meta skuid {{ {users} }} jump groups
    meta l4proto tcp reject with tcp reset
    reject
  }}
}}
table netdev {settings.table} {{
}}
"""
