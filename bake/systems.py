"""What follows from the operating system of the base AMI (R-OS), in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One operating system as its AMIs come: login user, home, what `/etc/os-release` may say, the package
    manager, and the group that may sudo.
    """

    user: str
    home: str
    os_ids: frozenset[str]
    packages: str
    admins: str


SYSTEMS = {
    # Debian is what the local cloud's stand-in base runs where the host is Debian: same apt, same layout.
    "ubuntu": System("ubuntu", "/home/ubuntu", frozenset({"ubuntu", "debian"}), "apt", "sudo"),
    "amazon-linux": System("ec2-user", "/home/ec2-user", frozenset({"amzn"}), "dnf", "wheel"),
}
