"""The hosts outside that machines may reach, where they were declared, and what was refused.

A rehearsal declares what the builder must reach by its plan; `bake local up --egress` what its user says.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from bake.localcloud.network import firewall
from bake.localcloud.network.control import Routes
from bake.localcloud.settings import Settings

ROUTE = "/-/egress"
_HOST = re.compile(r"[A-Za-z0-9*_-]+(\.[A-Za-z0-9*_-]+)+|localhost", re.ASCII)
_OF_BAKES = "bake:run"  # a tag of all that a bake launches


class Egress:
    """What strict machines reach beyond the cloud's servers, name servers and package sources (`always`).

    All machines are strict once somebody asked for that, and those of bakes once a bake declared its hosts.
    """

    def __init__(
        self,
        settings: Settings,
        always: Iterable[str] = (),
        declare: Callable[[Settings, Iterable[str]], None] = firewall.declare,
    ) -> None:
        self._settings, self._declare = settings, declare
        self._always = {host for text in always if (host := host_of(text))}
        self._lock = threading.Lock()
        self._patterns: set[str] = set()
        self._names: dict[str, str] = {}
        self._everybody = False
        self._bakes = False

    @property
    def declared(self) -> list[str] | None:
        """The declared hosts; None while every machine reaches everything."""
        return sorted(self._patterns) if self._everybody or self._bakes else None

    def declare(self, hosts: Iterable[str], *, everybody: bool) -> None:
        """Add hosts: names, patterns with `*`, addresses, networks or URLs; anything else is left out."""
        added = {host for text in hosts if (host := host_of(text))}
        with self._lock:
            self._everybody |= everybody
            self._bakes = True
            self._patterns |= added
        for host in sorted(added):
            if addresses := addresses_of(host):
                self.heard(host, addresses)

    def heard(self, name: str, addresses: list[str]) -> None:
        """Take note of a name's addresses; those of a declared host are let through."""
        with self._lock:
            self._names |= dict.fromkeys(addresses, name)
            wanted = any(name == one or fnmatchcase(name, one) for one in self._patterns | self._always)
        if wanted:
            self._declare(self._settings, addresses)

    def is_strict(self, instance: Any) -> bool:
        """Whether an instance reaches declared hosts only."""
        tags = {tag["key"] for tag in instance.get_tags()} if self._bakes else set()
        return self._everybody or _OF_BAKES in tags

    def refused(self) -> list[dict[str, Any]]:
        """The destinations that were refused, by name as far as a machine asked for one."""
        with self._lock:
            names = dict(self._names)
        return [
            {
                "host": names.get(address, address),
                "address": address,
                "protocol": protocol,
                "port": port,
                "packets": packets,
            }
            for (address, protocol, port), packets in sorted(firewall.refused(self._settings).items())
        ]

    def routes(self, changed: Callable[[], None]) -> Routes:
        """The control routes; `changed` is called when other machines may have become strict."""

        def declare(request: Any) -> list[str] | None:
            content = request.get_json(force=True)
            self.declare(map(str, content["hosts"]), everybody=bool(content["everybody"]))
            changed()
            return self.declared

        return {("POST", ROUTE): declare, ("GET", ROUTE): lambda request: self.refused()}


def host_of(text: str) -> str:
    """The host that a URL, `host:port` or `user@host:path` names, in small letters; empty if none."""
    if "://" in text:
        text = urlsplit(text).netloc
    host = text.rpartition("@")[2].strip().lower()
    with suppress(ValueError):
        return str(ipaddress.IPv4Network(host, strict=False)).removesuffix("/32")
    host = host.partition(":")[0]
    return host if _HOST.fullmatch(host) else ""


def addresses_of(host: str) -> list[str]:
    """The IPv4 addresses of a host now, or the network itself; none for a pattern or an unknown host."""
    with suppress(ValueError):
        return [str(ipaddress.IPv4Network(host)).removesuffix("/32")]
    if "*" in host:
        return []
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(one[4][0]) for one in found})


def named(refused: Iterable[dict[str, Any]]) -> list[str]:
    """Refused destinations as a person reads them."""
    return [
        f"{one['host']}:{one['port']}" if one["port"] else f"{one['host']} ({one['protocol']})"
        for one in refused
    ]
