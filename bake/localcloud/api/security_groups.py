"""Turn the security groups, routes and public addresses of the API into packet rules.

https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from bake.localcloud.api import routes
from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.network import firewall
from bake.localcloud.network.firewall import Opening, Traffic
from bake.localcloud.settings import SERVED, Settings

HTTPS = 443  # AWS's, the Hub's and the indexes' port; the cloud's servers have others
_NAMES = {"6": "tcp", "17": "udp", "1": "icmp", "icmpv6": "58"}


class Groups:
    """Keeps the packet rules in line with what the API says of instances and their network.

    `is_strict` tells of an instance whether it may reach declared hosts only.
    """

    def __init__(
        self,
        instances: LocalInstances,
        apply: Callable[[Traffic], None] | None = None,
        is_strict: Callable[[Any], bool] = lambda instance: False,
    ) -> None:
        self._instances = instances
        self._apply = apply or (lambda traffic: firewall.allow(instances.settings, traffic))
        self._is_strict = is_strict
        self._lock = threading.Lock()
        self._now = Traffic()

    def follow(self) -> None:
        """Update the rules; to be called after everything that may have changed a group or an instance."""
        with self._lock:
            wanted = self.wanted_of()
            if wanted != self._now:
                self._apply(wanted)
                self._now = wanted

    def wanted_of(self) -> Traffic:
        instances = [instance.moto for instance in self._instances.all() if instance.state != "terminated"]
        ways = {one.private_ip: routes.of(one) for one in instances}
        public = {one.public_ip: one.private_ip for one in instances if ways[one.private_ip].answers}
        return Traffic(
            openings=frozenset(openings(instances, self._instances.settings)),
            public=public,
            seen_as={address: way.seen_as for address, way in ways.items() if way.seen_as},
            cut_off=frozenset(address for address, way in ways.items() if not way.seen_as),
            strict=frozenset(one.private_ip for one in instances if self._is_strict(one)),
        )


def openings(instances: list[Any], settings: Settings) -> Iterator[Opening]:
    """What the groups of these instances allow."""
    for instance in instances:
        for group in groups_of(instance):
            for rule in list(group.ingress_rules):
                yield from _ingress(rule, instance.private_ip, instances, settings)
            for rule in list(group.egress_rules):
                yield from _egress(rule, instance.private_ip, instances, settings)


def groups_of(instance: Any) -> list[Any]:
    """The groups of the instance's network card."""
    return list(instance.nics[0]._group_set or instance.security_groups)


def _ingress(rule: Any, address: str, instances: list[Any], settings: Settings) -> Iterator[Opening]:
    for peer in _peers(rule, instances):
        yield from _opening("arriving", rule, address, peer)
    if names_controller(rule, settings):
        yield from _opening("from_host", rule, address)


def _egress(rule: Any, address: str, instances: list[Any], settings: Settings) -> Iterator[Opening]:
    for peer in _peers(rule, instances):
        yield from _opening("leaving", rule, address, peer)
    if rule.cidr_ipv4 and names_controller(rule, settings):
        yield from _to_servers(rule, address)


def _to_servers(rule: Any, address: str) -> Iterator[Opening]:
    """The cloud's servers stand for hosts of the Internet that answer on port 443."""
    for one in _opening("to_servers", rule, address):
        yield one
        if one.protocol == "tcp" and one.ports and one.ports[0] <= HTTPS <= one.ports[1]:
            yield from (Opening("to_servers", address, "tcp", (port, port)) for port in SERVED)


def names_controller(rule: Any, settings: Settings) -> bool:
    """Whether a rule means this host too, which stands for a controller outside the VPC.

    Any network outside the local cloud's does, IPv6 ones as well, since machines have no IPv6 here; and the
    host's own address, by which machines see it.
    """
    if rule.cidr_ipv6:
        six = ipaddress.IPv6Network(rule.cidr_ipv6, strict=False)
        return not any(six.subnet_of(block) for block in _ipv6_of_vpc(rule))
    if not rule.cidr_ipv4:
        return False
    four = ipaddress.IPv4Network(rule.cidr_ipv4, strict=False)
    return not four.subnet_of(settings.network) or str(four) == f"{settings.address}/32"


def _ipv6_of_vpc(rule: Any) -> Iterator[ipaddress.IPv6Network]:
    group = rule.ec2_backend.get_security_group_from_id(rule.group_id)
    vpc: Any = rule.ec2_backend.vpcs.get(group.vpc_id) if group else None
    for block in vpc.get_cidr_block_association_set(ipv6=True) if vpc else ():
        yield ipaddress.IPv6Network(block["cidr_block"], strict=False)


def _peers(rule: Any, instances: list[Any]) -> Iterator[str]:
    """The IPv4 networks that a rule names, or the addresses of the instances in the group that it names."""
    if rule.cidr_ipv4:
        yield str(ipaddress.IPv4Network(rule.cidr_ipv4, strict=False))
    named = rule.source_group.get("GroupId")
    for other in instances:
        if named and named in {group.id for group in groups_of(other)}:
            yield str(other.private_ip)


def _opening(
    way: Literal["arriving", "from_host", "leaving", "to_servers"], rule: Any, address: str, peer: str = ""
) -> Iterator[Opening]:
    protocol = _NAMES.get(str(rule.ip_protocol).lower(), str(rule.ip_protocol).lower())
    first, last = rule.from_port, rule.to_port
    ports = None if None in (first, last) or first == -1 else (int(first), int(last))
    if protocol in {"tcp", "udp", "icmp"}:
        yield Opening(way, address, protocol, ports, peer)
    elif protocol == "-1" or (re.fullmatch(r"\d{1,3}", protocol) and protocol != "58"):
        yield Opening(way, address, protocol, None, peer)
