"""The packet rules of one local cloud (nftables). Traffic that no rule here allows is refused.

- Security groups decide what reaches an instance and what leaves it, as on EC2: silently, and replies pass.
  Metadata and names are not subject to them.
- An instance reaches the cloud's servers and package sources on this host, other hosts, or only those that
  were declared, and other instances; no other port of this host, and not this host's metadata.
- Public addresses are translated to private ones, for this host and between instances.
- Root and the cloud's owner reach the servers, and instances as a controller outside the VPC does.
- Nobody else reaches anything: no other user of this host, and no neighbour that routes through it.
- An instance sends IPv4 only, and only from its own address, by which the metadata service knows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bake.localcloud import host
from bake.localcloud.settings import DNS_PORT, IMDS_PORT, METADATA_ADDRESS, SERVED, Settings

PROBE_MARK = 0x62616B65  # of root's packets that look whether a machine is up, whatever its groups say
_VERDICTS = {"arriving": "accept", "from_host": "accept", "leaving": "return", "to_servers": "return"}
_ENDS = {
    "arriving": "ip saddr {peer} ip daddr {address}",
    "from_host": "ip daddr {address}",
    # As the instance addressed it, before a public address was translated.
    "leaving": "ip saddr {address} ct original ip daddr {peer}",
    "to_servers": "ip saddr {address}",
}


@dataclass(frozen=True)
class Opening:
    """Traffic of an instance that a security group allows.

    It comes from a network (`arriving`) or from this host (`from_host`), or goes to a network (`leaving`) or
    to the cloud's servers (`to_servers`). `protocol` is tcp, udp, icmp, a number, or -1 for all. `ports` are
    the first and the last; of icmp they are type and code, and a code of -1 is all. Without `ports` all are
    allowed.
    """

    way: Literal["arriving", "from_host", "leaving", "to_servers"]
    address: str
    protocol: str
    ports: tuple[int, int] | None = None
    peer: str = ""

    def rule(self) -> str:
        """The rule in nftables' syntax."""
        ends = _ENDS[self.way].format(peer=self.peer, address=self.address)
        return " ".join(part for part in (ends, self._what(), _VERDICTS[self.way]) if part)

    def _what(self) -> str:
        match self.protocol, self.ports:
            case "tcp" | "udp", (first, last):
                return f"{self.protocol} dport {first}-{last}"
            case "icmp", (kind, -1):
                return f"icmp type {kind}"
            case "icmp", (kind, code):
                return f"icmp type {kind} icmp code {code}"
            case "-1", _:
                return ""
            case _:
                return f"meta l4proto {self.protocol}"


@dataclass(frozen=True)
class Traffic:
    """What is allowed at the moment.

    `public` maps a public address to the instance's that answers there, and `seen_as` an instance's to the
    public one by which others see it. Instances that are `cut_off` have no route out of the VPC; those that
    are `strict` reach declared hosts only.
    """

    openings: frozenset[Opening] = frozenset()
    public: Mapping[str, str] = field(default_factory=dict)
    seen_as: Mapping[str, str] = field(default_factory=dict)
    cut_off: frozenset[str] = frozenset()
    strict: frozenset[str] = frozenset()

    def commands(self, table: str) -> str:
        """Replace what was allowed before, as commands to nft."""
        ways: dict[str, list[str]] = {way: [] for way in _VERDICTS}
        for one in sorted(self.openings, key=repr):
            ways[one.way].append(one.rule())
        lines = []
        for way, rules in ways.items():
            lines.append(f"flush chain ip {table} {way}")
            lines += [f"add rule ip {table} {way} {rule}" for rule in [*rules, "drop"]]
        for name, pairs in (("to_private", self.public), ("to_public", self.seen_as)):
            lines += _refilled("map", table, name, [f"{key} : {value}" for key, value in pairs.items()])
        lines += _refilled("set", table, "cut_off", self.cut_off)
        lines += _refilled("set", table, "strict", self.strict)
        return "".join(f"{line}\n" for line in lines)


def _refilled(kind: str, table: str, name: str, elements: Iterable[str]) -> list[str]:
    lines = [f"flush {kind} ip {table} {name}"]
    if listed := ", ".join(sorted(elements)):
        lines.append(f"add element ip {table} {name} {{ {listed} }}")
    return lines


def up(settings: Settings, name_servers: Sequence[str], sources: Iterable[tuple[str, int]] = ()) -> None:
    """Install the rules; `sources` are addresses and ports of package sources, also those on this host."""
    host.run("nft", "-f", "-", stdin=rules(settings, name_servers, sources))


def down(settings: Settings) -> None:
    """Remove the rules, if any."""
    for family in ("ip", "netdev"):
        host.run("nft", "delete", "table", family, settings.table, check=False)


def allow(settings: Settings, traffic: Traffic) -> None:
    """Allow this instead of what was allowed before, at once; connections that exist go on."""
    host.run("nft", "-f", "-", stdin=traffic.commands(settings.table))


def declare(settings: Settings, addresses: Iterable[str]) -> None:
    """Let strict instances reach these addresses and networks, besides those declared before."""
    if listed := ", ".join(addresses):
        host.run("nft", "add", "element", "ip", settings.table, "declared", f"{{ {listed} }}")


def refused(settings: Settings) -> dict[tuple[str, str, int], int]:
    """How many packets of strict instances were refused, by address, protocol and port (0: it has none)."""
    counts = {}
    for name in ("refused", "refused_other"):
        listed = json.loads(host.run("nft", "-j", "list", "set", "ip", settings.table, name))
        for entry in _elements(listed):
            address, protocol, *port = entry["val"]["concat"]
            key = str(address), str(protocol), int(port[0]) if port else 0
            counts[key] = int(entry["counter"]["packets"])
    return counts


def _elements(listed: Mapping[str, Any]) -> list[Any]:
    found = [one["set"].get("elem", []) for one in listed["nftables"] if "set" in one]
    return [element["elem"] for elements in found for element in elements]


def guard(settings: Settings, interface: str, address: str, mac: str) -> None:
    """Accept from an instance's interface only packets from its own addresses."""
    content = f"""
table netdev {settings.table} {{
  chain {interface} {{
    type filter hook ingress device "{interface}" priority filter; policy drop;
    ether saddr != {mac} drop
    ether type arp arp saddr ether {mac} arp saddr ip {{ {address}, 0.0.0.0 }} accept
    ip saddr {address} accept
  }}
}}
"""
    host.run("nft", "-f", "-", stdin=content)


def unguard(settings: Settings, interface: str) -> None:
    """Remove the rules of an instance's interface, if any."""
    host.run("nft", "delete", "chain", "netdev", settings.table, interface, check=False)


def tables() -> list[str]:
    """All nftables tables, each as family and name."""
    return [line.removeprefix("table ") for line in host.run("nft", "list", "tables").splitlines()]


def rules(settings: Settings, name_servers: Sequence[str], sources: Iterable[tuple[str, int]]) -> str:
    """All rules of a cloud without instances, as nft reads them."""
    names = "".join(
        f"    ip daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept\n" for server in name_servers
    )
    packages = "".join(
        f"    ip daddr {source} tcp dport {port} {verdict}\n"
        for source, port in sorted(set(sources))
        for verdict in ("jump leaving", "accept")
    )
    chains = (
        _SETS,
        _translation(settings),
        _to_host(settings, names, packages),
        _forwarded(settings, names, packages),
        _from_host(settings),
    )
    return f"table ip {settings.table} {{\n{''.join(chains)}}}\ntable netdev {settings.table} {{\n}}\n"


_SETS = """
  map to_private { type ipv4_addr : ipv4_addr; }
  map to_public { type ipv4_addr : ipv4_addr; }
  set cut_off { type ipv4_addr; }
  set strict { type ipv4_addr; }
  set declared { type ipv4_addr; flags interval; auto-merge; }
  set refused {
    type ipv4_addr . inet_proto . inet_service; flags dynamic; size 4096; counter;
  }
  set refused_other {
    type ipv4_addr . inet_proto; flags dynamic; size 4096; counter;
  }
  # Of the security groups; `allow` replaces what is in these.
  chain arriving {
    drop
  }
  chain from_host {
    drop
  }
  chain leaving {
    drop
  }
  chain to_servers {
    drop
  }
"""


def _translation(settings: Settings) -> str:
    """Addresses: metadata, names that strict instances ask for, public ones, and the way out."""
    bridge, network, address, public = _words(settings)
    return f"""
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{bridge}" ip daddr {METADATA_ADDRESS} tcp dport 80 dnat to {address}:{IMDS_PORT}
    iifname "{bridge}" ip saddr @strict meta l4proto {{ tcp, udp }} th dport 53 dnat to {address}:{DNS_PORT}
    iifname "{bridge}" ip daddr {public} dnat to ip daddr map @to_private
  }}
  chain output_to_public {{
    type nat hook output priority -100; policy accept;
    ip daddr {public} dnat to ip daddr map @to_private
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} ip daddr {network} ct original ip daddr {public} snat to ip saddr map @to_public
    ip saddr {network} ip daddr != {network} masquerade
  }}
"""


def _to_host(settings: Settings, names: str, packages: str) -> str:
    bridge, network, address, _ = _words(settings)
    ports = ", ".join(map(str, SERVED))
    return f"""
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{bridge}" goto from_instances
    iifname != "lo" ip daddr {network} drop
  }}
  chain from_instances {{
    ct state established,related accept
    ip daddr {address} ct status dnat tcp dport {IMDS_PORT} accept
    ip daddr {address} ct status dnat meta l4proto {{ tcp, udp }} th dport {DNS_PORT} accept
    ip daddr {address} icmp type echo-request accept
{names}    ip daddr {address} tcp dport {{ {ports} }} goto served
    ip saddr @cut_off drop
{packages}    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain served {{
    ip saddr @cut_off drop
    jump to_servers
    accept
  }}
"""


def _forwarded(settings: Settings, names: str, packages: str) -> str:
    """What instances send to the world and to each other.

    What arrives at an instance is judged when all addresses are translated: as one that was addressed by its
    public address, it sees the sender's public one.
    """
    bridge, network, address, _ = _words(settings)
    return f"""
  chain forward {{
    type filter hook forward priority filter; policy accept;
    # The host may itself be a cloud instance: its metadata stays out of reach.
    iifname "{bridge}" ip daddr 169.254.0.0/16 reject
    iifname "{bridge}" ct state established,related accept
    oifname "{bridge}" ct state established,related accept
    iifname "{bridge}" goto out
    oifname "{bridge}" drop
  }}
  chain out {{
{names}    ip saddr @cut_off ct original ip daddr != {settings.vpc} drop
{packages}    jump leaving
    oifname "{bridge}" accept
    ip saddr != @strict accept
    ip daddr @declared accept
    meta l4proto {{ tcp, udp }} add @refused {{ ip daddr . meta l4proto . th dport }}
    meta l4proto != {{ tcp, udp }} add @refused_other {{ ip daddr . meta l4proto }}
    meta l4proto tcp reject with tcp reset
    reject with icmp type admin-prohibited
  }}
  chain to_instances {{
    type filter hook postrouting priority 150; policy accept;
    oifname != "{bridge}" accept
    ct state established,related accept
    ip saddr != {network} accept
    ip saddr {address} accept
    goto arriving
  }}
"""


def _from_host(settings: Settings) -> str:
    _, network, address, _ = _words(settings)
    users = ", ".join(map(str, sorted({0, settings.owner})))
    return f"""
  chain output {{
    type filter hook output priority filter; policy accept;
    ip daddr {network} goto of_host
  }}
  chain of_host {{
    ct state established,related accept
    meta skuid 0 meta mark {PROBE_MARK:#x} accept
    meta skuid {{ {users} }} ip daddr {address} accept
    meta skuid {{ {users} }} goto from_host
    meta l4proto tcp reject with tcp reset
    reject
  }}
"""


def _words(settings: Settings) -> tuple[str, str, str, str]:
    return settings.bridge, str(settings.network), settings.address, str(settings.public_addresses)
