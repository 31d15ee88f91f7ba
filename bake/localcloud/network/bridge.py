"""The network: a bridge with one veth pair per instance, metadata by DNAT, the way out by masquerade.

firewall.py decides who may talk to whom.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Iterable
from ipaddress import IPv4Network, ip_interface
from pathlib import Path
from typing import TextIO

from bake.errors import UsageError
from bake.localcloud import host
from bake.localcloud.network import firewall, kernel
from bake.localcloud.settings import RUN, Settings


def claim(settings: Settings, *, patience: float = 60) -> TextIO:
    """Claim the network for this process while the returned file is open.

    A cloud with the same state directory is going down: wait for it, at most `patience` seconds.
    UsageError if any other local cloud has the network.
    """
    RUN.mkdir(parents=True, exist_ok=True)
    file = _claim_file(settings).open("a+")
    deadline = time.monotonic() + patience
    while True:
        try:
            # Not filelock: its FileLock has no shared locks, by which `claimed` looks at the same file.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _claim_file(settings).read_text()
            if holder == str(settings.state) and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            file.close()
            raise UsageError(
                f"the network {settings.network} belongs to a local cloud that is up, with its state in "
                f"{holder}",
                hint="choose another with BAKE_LOCAL_NETWORK, like BAKE_LOCAL_NETWORK=10.213.0.0/24",
            ) from None
        file.truncate(0)
        file.write(str(settings.state))
        file.flush()
        return file


def claimed(settings: Settings) -> bool:
    """Whether a living process has claimed the network."""
    try:
        with _claim_file(settings).open() as file:
            # Shared, so that two processes that look at once do not take each other for a cloud.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _claim_file(settings: Settings) -> Path:
    return RUN / f"{settings.tag}.lock"


def up(settings: Settings, package_servers: Iterable[tuple[str, int]] = ()) -> None:
    """Make the bridge and the rules. UsageError when the host uses the network already.

    `package_servers` are addresses and ports that machines may reach even where they are this host's own.
    """
    _refuse_overlap(settings)
    length = settings.network.prefixlen
    host.run(
        "ip", "-batch", "-",
        stdin=f"link add {settings.bridge} type bridge\n"
        f"addr add {settings.address}/{length} dev {settings.bridge}\n"
        f"link set {settings.bridge} up\n",
    )  # fmt: skip
    # Instances' ports are isolated from each other: what one sends to another, the host routes, or refuses.
    for name, value in (("conf", "proxy_arp_pvlan=1"), ("neigh", "proxy_delay=0")):
        key, _, content = value.partition("=")
        Path(f"/proc/sys/net/ipv4/{name}/{settings.bridge}/{key}").write_text(content)
    firewall.up(settings, name_servers(), package_servers)
    kernel.prepare(settings.tag)


def down(settings: Settings) -> None:
    """Remove what is left of the bridge and the rules, if anything."""
    for link in _links():
        if link["ifname"].startswith(settings.bridge):
            host.run("ip", "link", "del", link["ifname"], check=False)
    firewall.down(settings)
    kernel.restore(settings.tag)


def attach(settings: Settings, address: str, mac: str, process: int) -> None:
    """Connect the network namespace of `process` as the instance with this address, by its card eth0."""
    detach(settings, address)
    interface = _interface(settings, address)
    host.run(
        "ip", "-batch", "-",
        stdin=f"link add {interface} type veth peer name eth0 address {mac} netns {process}\n"
        f"link set {interface} master {settings.bridge}\n"
        f"link set {interface} type bridge_slave isolated on\n",
    )  # fmt: skip
    firewall.guard(settings, interface, address, mac)
    host.run("ip", "link", "set", interface, "up")
    host.run(
        "nsenter", f"--net=/proc/{process}/ns/net", "ip", "-batch", "-",
        stdin="link set lo up\n"
        f"addr add {address}/{settings.network.prefixlen} dev eth0\n"
        "link set eth0 up\n"
        f"route add default via {settings.address}\n",
    )  # fmt: skip


def detach(settings: Settings, address: str) -> None:
    """Remove the interface of an instance."""
    interface = _interface(settings, address)
    firewall.unguard(settings, interface)
    host.run("ip", "link", "del", interface, check=False)


def left(settings: Settings) -> list[str]:
    """The interfaces and nftables of this cloud that are still there."""
    found = [f"interface {link['ifname']}" for link in _links() if link["ifname"].startswith(settings.bridge)]
    tables = [table for table in firewall.tables() if table.endswith(f" {settings.table}")]
    return found + [f"nftables {table}" for table in tables]


def resolv_conf() -> str:
    """resolv.conf for instances: the host's name servers, never its loopback stub, which they can't reach."""
    text = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ")]
    upstream = Path("/run/systemd/resolve/resolv.conf")
    if all(server.startswith("127.") or server == "::1" for server in servers) and upstream.exists():
        return upstream.read_text(encoding="utf-8", errors="replace")
    return text


def name_servers() -> list[str]:
    """The IPv4 addresses of the name servers that instances use."""
    lines = (line.split() for line in resolv_conf().splitlines())
    servers = [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]
    return [server for server in servers if re.fullmatch(r"[0-9.]+", server)]


def _interface(settings: Settings, address: str) -> str:
    """The name of an instance's interface at the bridge's end."""
    return f"{settings.bridge}-{int(ip_interface(address).ip) - int(settings.network.network_address)}"


def _links() -> list[dict[str, str]]:
    links: list[dict[str, str]] = json.loads(host.run("ip", "-json", "link", "show") or "[]")
    return links


def _refuse_overlap(settings: Settings) -> None:
    routes = json.loads(host.run("ip", "-json", "-4", "route", "show") or "[]")
    for route in routes:
        if route["dst"] != "default" and settings.network.overlaps(IPv4Network(route["dst"], strict=False)):
            raise UsageError(
                f"the network {settings.network} is in use: {route['dst']} goes to {route['dev']}",
                hint="choose another with BAKE_LOCAL_NETWORK, like BAKE_LOCAL_NETWORK=10.213.0.0/24",
            )
