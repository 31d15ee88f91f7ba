"""What a machine holds, recorded at one moment: packages, users, units, ports, settings, and bytes by place.

The machine answers by itself in one round trip (bake/checks/probes/inventory.py).
"""

from __future__ import annotations

from pydantic import Field

from bake.checks.result import Moment, Record


class Package(Record):
    """An installed package: `kind` is `deb`, `rpm`, `python`, or `program` elsewhere."""

    kind: str
    name: str
    version: str
    arch: str = ""
    where: str = ""
    """The virtual environment or folder of a Python package, the folder of a program."""


class Inventory(Record):
    """What a machine holds, at one moment. Names map to what identifies them."""

    moment: Moment
    kernel: str
    """The release of the kernel that the image boots, which need not be the one that runs."""
    os: str
    """PRETTY_NAME of /etc/os-release."""
    packages: tuple[Package, ...] = ()
    held: tuple[str, ...] = ()
    """Packages that an upgrade leaves as they are."""
    dependencies: dict[str, str] = Field(default_factory=dict)
    """Package -> a package that the bake asks for and that needs it, by the package manager's own words."""
    users: dict[str, str] = Field(default_factory=dict)
    """Name -> uid, gid, home and shell."""
    groups: dict[str, str] = Field(default_factory=dict)
    """Name -> gid and members."""
    units: dict[str, str] = Field(default_factory=dict)
    """Unit file -> state: enabled, disabled, masked, static. Without the transient and the lease's."""
    ports: dict[str, str] = Field(default_factory=dict)
    """Protocol, address and port that listens -> program. The loopback's, too."""
    setuid: dict[str, str] = Field(default_factory=dict)
    """Path -> mode, owner and capabilities of a program that runs with more rights than its caller's."""
    owners: dict[str, str] = Field(default_factory=dict)
    """Unit file or path in `setuid` -> the package that delivered it."""
    sysctl: dict[str, str] = Field(default_factory=dict)
    """Kernel parameter -> value, of those that configuration files set."""
    kernel_parameters: str = ""
    """The kernel's command line that the image boots with."""
    repositories: dict[str, str] = Field(default_factory=dict)
    """Package source file, or key that signs packages -> hash of its content, which may hold a password."""
    versions: dict[str, str] = Field(default_factory=dict)
    """What people ask for: kernel, driver, cuda, torch, diffusers, transformers, neuron, python."""
    incomplete: tuple[str, ...] = ()
    """The fields that could not be recorded."""
