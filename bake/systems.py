"""The operating systems of base AMIs (R-OS), in one table.

Profiles, plans, provisioning, checks and the local cloud read it. To add a system, add an entry;
`tests/bake/test_systems.py` then names each place that lacks something for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class System:
    """One operating system as its AMIs come."""

    title: str
    oldest: str
    """The oldest release that has what a bake needs."""
    names: re.Pattern[str]
    """How the names and descriptions of its AMIs call it."""
    suffix: str
    """What the variables that name its base AMIs end with."""
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


# Debian is what the local cloud's stand-in for Ubuntu runs where the host is Debian: same apt, same layout.
SYSTEMS = {
    "ubuntu": System(
        title="Ubuntu",
        oldest="Ubuntu 22.04",
        names=re.compile(r"ubuntu|debian", re.IGNORECASE),
        suffix="",
        user="ubuntu",
        home="/home/ubuntu",
        os_ids=frozenset({"ubuntu", "debian"}),
        packages="apt",
        admins="sudo",
        ssh="ssh",
        python=("python3", "python3*-minimal", "libpython3*-stdlib"),
    ),
    "amazon-linux": System(
        title="Amazon Linux",
        oldest="Amazon Linux 2023",
        names=re.compile(r"amazon linux|al2023|amzn", re.IGNORECASE),
        suffix="_AMAZON_LINUX",
        user="ec2-user",
        home="/home/ec2-user",
        os_ids=frozenset({"amzn"}),
        packages="rpm",
        admins="wheel",
        ssh="sshd",
        python=("python3", "python3-libs"),
    ),
}

if TYPE_CHECKING:
    SystemName = str
else:
    SystemName = Literal[tuple(SYSTEMS)]
    """A key of the table, as a type that pydantic checks."""


def ami_variable(system: str, accelerator: str) -> str:
    """The variable that usually names the base AMI: BASE_AMI_ID, BASE_AMI_ID_NEURON_AMAZON_LINUX, …"""
    neuron = "_NEURON" if accelerator == "neuron" else ""
    return f"BASE_AMI_ID{neuron}{SYSTEMS[system].suffix if system in SYSTEMS else ''}"
