"""Turn the security groups of the API into packet rules."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.network import firewall
from bake.localcloud.network.firewall import Opening


class Groups:
    """Keeps the packet rules in line with the instances' security groups. Egress is not enforced."""

    def __init__(
        self, instances: LocalInstances, apply: Callable[[set[Opening]], None] | None = None
    ) -> None:
        self._instances = instances
        self._apply = apply or (lambda openings: firewall.open_only(instances.settings, openings))
        self._lock = threading.Lock()
        self._open: set[Opening] = set()

    def follow(self) -> None:
        """Update the rules; to be called after every API call that may have changed a group."""
        with self._lock:
            wanted = set(self._wanted())
            if wanted != self._open:
                self._apply(wanted)
                self._open = wanted

    def _wanted(self) -> Iterator[Opening]:
        instances = [instance.moto for instance in self._instances.all() if instance.state != "terminated"]
        for instance in instances:
            for group in groups_of(instance):
                for rule in group.ingress_rules:
                    for source in _sources(rule, instances):
                        yield from _opening(rule, source, instance.private_ip)


def groups_of(instance: Any) -> list[Any]:
    """The groups of the instance's network card."""
    return list(instance.nics[0]._group_set or instance.security_groups)


def _sources(rule: Any, instances: list[Any]) -> Iterator[str]:
    """The IPv4 networks that a rule names, or the addresses of the instances in the group that it names."""
    if rule.cidr_ipv4:
        yield str(ipaddress.IPv4Network(rule.cidr_ipv4, strict=False))
    named = rule.source_group.get("GroupId")
    for other in instances:
        if named and named in {group.id for group in groups_of(other)}:
            yield str(other.private_ip)


def _opening(rule: Any, source: str, address: str) -> Iterator[Opening]:
    protocol = str(rule.ip_protocol)
    if protocol in {"tcp", "udp"}:
        yield Opening(source, address, protocol, (rule.from_port, rule.to_port))
    elif protocol == "-1" or re.fullmatch(r"icmp|\d{1,3}", protocol):
        yield Opening(source, address, protocol)
