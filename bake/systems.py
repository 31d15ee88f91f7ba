"""What follows from the operating system of the base AMI (R-OS), in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One operating system as its AMIs come: login user, home, and what `/etc/os-release` may say."""

    user: str
    home: str
    os_ids: frozenset[str]


SYSTEMS = {
    # Debian is what the local cloud's stand-in base runs where the host is Debian: same apt, same layout.
    "ubuntu": System("ubuntu", "/home/ubuntu", frozenset({"ubuntu", "debian"})),
}
