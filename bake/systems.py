"""What follows from the operating system of the base AMI (R-OS), in one table.

Profiles, plans, provisioning, checks and the local cloud's bases read it here. Another system is one entry,
a base in `bake/localcloud`, and its package manager in `provision/lib/packages.sh` where that is new.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One operating system as its AMIs come."""

    title: str
    user: str
    """The login user, whom the worker runs as."""
    home: str
    os_ids: frozenset[str]
    """What `ID=` in `/etc/os-release` may say."""
    packages: str
    """The package manager: `apt`, or `rpm` for dnf and yum."""
    admins: str
    """The group whose members may sudo."""
    ssh: str
    """The name of the SSH server's service."""
    python: tuple[str, ...]
    """The packages of the system's own Python, as patterns of their manager."""


SYSTEMS = {
    "ubuntu": System(
        title="Ubuntu",
        user="ubuntu",
        home="/home/ubuntu",
        # Debian is what the local cloud's stand-in base runs where the host is Debian: same apt, same layout.
        os_ids=frozenset({"ubuntu", "debian"}),
        packages="apt",
        admins="sudo",
        ssh="ssh",
        python=("python3", "python3*-minimal", "libpython3*-stdlib"),
    ),
    "amazon-linux": System(
        title="Amazon Linux",
        user="ec2-user",
        home="/home/ec2-user",
        os_ids=frozenset({"amzn"}),
        packages="rpm",
        admins="wheel",
        ssh="sshd",
        python=("python3", "python3-libs"),
    ),
}
