"""The network: a bridge, one namespace an instance, metadata by DNAT, the way out by masquerade."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, ip_interface
from pathlib import Path
from typing import TextIO

from bake.errors import UsageError
from bake.localcloud import host
from bake.localcloud.settings import IMDS_PORT, METADATA_ADDRESS, Settings

RUN = Path("/run/bake")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
# Shared by all local clouds of this machine: the last one to leave puts ip_forward back.
_FORWARD_USERS = RUN / "ip-forward"


def claim(settings: Settings, *, patience: float = 60) -> TextIO:
    """Make the network this process's own while the returned file is open.

    UsageError if another local cloud has it; one with the same state directory is on its way down, and
    is waited for, `patience` seconds long.
    """
    RUN.mkdir(parents=True, exist_ok=True)
    file = _claim_file(settings).open("a+")
    deadline = time.monotonic() + patience
    while True:
        try:
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
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _claim_file(settings: Settings) -> Path:
    return RUN / f"{settings.tag}.lock"


def up(settings: Settings) -> None:
    """Make the bridge and the rules; UsageError when the network is somebody else's."""
    _refuse_overlap(settings)
    length = settings.network.prefixlen
    host.run(
        "ip", "-batch", "-",
        stdin=f"link add {settings.bridge} type bridge\n"
        f"addr add {settings.address}/{length} dev {settings.bridge}\n"
        f"link set {settings.bridge} up\n",
    )  # fmt: skip
    host.run("nft", "-f", "-", stdin=_rules(settings))
    _forward_on(settings.tag)


def down(settings: Settings) -> None:
    """Take down whatever of it is there; does nothing where nothing is."""
    for name in namespaces(settings):
        host.run("ip", "netns", "del", name, check=False)
    for link in _links():
        if link["ifname"].startswith(settings.bridge):
            host.run("ip", "link", "del", link["ifname"], check=False)
    host.run("nft", "delete", "table", "ip", settings.table, check=False)
    _forward_off(settings.tag)


def attach(settings: Settings, address: str, mac: str) -> str:
    """Make the namespace of the instance with this address and return its name."""
    number = _number(settings, address)
    name = f"{settings.netns_prefix}{number}"
    veth = f"{settings.bridge}-{number}"
    detach(settings, address)
    host.run("ip", "netns", "add", name)
    host.run(
        "ip", "-batch", "-",
        stdin=f"link add {veth} type veth peer name eth0 address {mac} netns {name}\n"
        f"link set {veth} master {settings.bridge} up\n",
    )  # fmt: skip
    host.run(
        "ip", "-n", name, "-batch", "-",
        stdin="link set lo up\n"
        f"addr add {address}/{settings.network.prefixlen} dev eth0\n"
        "link set eth0 up\n"
        f"route add default via {settings.address}\n",
    )  # fmt: skip
    return name


def detach(settings: Settings, address: str) -> None:
    """Remove the namespace of an instance and its cable."""
    number = _number(settings, address)
    host.run("ip", "link", "del", f"{settings.bridge}-{number}", check=False)
    host.run("ip", "netns", "del", f"{settings.netns_prefix}{number}", check=False)


def namespaces(settings: Settings) -> list[str]:
    """The names of this cloud's network namespaces."""
    found = Path("/run/netns")
    return sorted(path.name for path in found.glob(f"{settings.netns_prefix}*")) if found.is_dir() else []


def resolv_conf() -> str:
    """What instances use for DNS: the host's servers, never its loopback stub, which they can't reach."""
    text = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ")]
    upstream = Path("/run/systemd/resolve/resolv.conf")
    if all(server.startswith("127.") or server == "::1" for server in servers) and upstream.exists():
        return upstream.read_text(encoding="utf-8", errors="replace")
    return text


def _number(settings: Settings, address: str) -> int:
    return int(ip_interface(address).ip) - int(settings.network.network_address)


def _rules(settings: Settings) -> str:
    bridge, network = settings.bridge, settings.network
    return f"""
table ip {settings.table} {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{bridge}" ip daddr {METADATA_ADDRESS} tcp dport 80 dnat to {settings.address}:{IMDS_PORT}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} ip daddr != {network} masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    # The host may be an instance of a real cloud: nobody here may ask for its metadata.
    iifname "{bridge}" ip daddr 169.254.0.0/16 reject
  }}
}}
"""


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


@contextmanager
def _forward_lock() -> Iterator[None]:
    _FORWARD_USERS.mkdir(parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forward_on(tag: str) -> None:
    with _forward_lock():
        before = RUN / "ip-forward-before"
        if not any(_FORWARD_USERS.iterdir()):
            before.write_text(_FORWARD.read_text())
        (_FORWARD_USERS / tag).touch()
        _FORWARD.write_text("1\n")


def _forward_off(tag: str) -> None:
    with _forward_lock():
        marker = _FORWARD_USERS / tag
        before = RUN / "ip-forward-before"
        if not marker.exists():
            return
        marker.unlink()
        if not any(_FORWARD_USERS.iterdir()) and before.exists():
            _FORWARD.write_text(before.read_text())
            before.unlink()
