"""Who may talk to whom: packet rules of one local cloud (nftables). What is not said here is refused.

- Instances reach the cloud's servers, name servers and package sources that run on this host, and the world
  beyond it; no other port of this host, not its own metadata, and each other where a security group says so.
- Root and the cloud's owner reach its servers, and instances by SSH, or as a security group says.
- Nobody else reaches anything: no other user of this host, and no neighbour that routes through it.
- An instance sends from its own address alone (its metadata is told by that), and nothing but IPv4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bake.localcloud import host
from bake.localcloud.settings import IMDS_PORT, METADATA_ADDRESS, SERVED, Settings


@dataclass(frozen=True)
class Opening:
    """What a security group lets in: from a network to an instance. `ports` are the first and the last.

    `protocol` is tcp, udp, icmp or -1 for all; without `ports` all are meant.
    """

    source: str
    address: str
    protocol: str
    ports: tuple[int, int] | None = None

    def rule(self) -> str:
        """As nftables writes it."""
        ends = f"ip saddr {self.source} ip daddr {self.address}"
        match self.protocol, self.ports:
            case "tcp" | "udp", (first, last):
                return f"{ends} {self.protocol} dport {first}-{last} accept"
            case "-1", _:
                return f"{ends} accept"
            case _:
                return f"{ends} meta l4proto {self.protocol} accept"


def up(settings: Settings, name_servers: Sequence[str], sources: Iterable[tuple[str, int]] = ()) -> None:
    """Put the rules up; `sources` are addresses and ports of package sources that may be this host's own."""
    host.run("nft", "-f", "-", stdin=_rules(settings, name_servers, sources))


def down(settings: Settings) -> None:
    """Take them down; does nothing where there are none."""
    for family in ("ip", "netdev"):
        host.run("nft", "delete", "table", family, settings.table, check=False)


def open_only(settings: Settings, openings: Iterable[Opening]) -> None:
    """Let in what security groups say now, and nothing of what they said before."""
    rules = "".join(
        f"add rule ip {settings.table} groups {one.rule()}\n" for one in sorted(set(openings), key=repr)
    )
    host.run("nft", "-f", "-", stdin=f"flush chain ip {settings.table} groups\n{rules}")


def guard(settings: Settings, cable: str, address: str, mac: str) -> None:
    """Let through a cable what comes from its instance's own addresses, and nothing else."""
    rules = f"""
table netdev {settings.table} {{
  chain {cable} {{
    type filter hook ingress device "{cable}" priority filter; policy drop;
    ether saddr != {mac} drop
    ether type arp arp saddr ether {mac} arp saddr ip {{ {address}, 0.0.0.0 }} accept
    ip saddr {address} accept
  }}
}}
"""
    host.run("nft", "-f", "-", stdin=rules)


def unguard(settings: Settings, cable: str) -> None:
    """Forget a cable; does nothing where there is none."""
    host.run("nft", "delete", "chain", "netdev", settings.table, cable, check=False)


def tables() -> list[str]:
    """The names of all tables there are, with their family before."""
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
    # The host may be an instance of a real cloud: nobody here may ask for its metadata.
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
