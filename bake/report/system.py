"""Which distribution a machine runs, of what /etc/os-release calls it."""

from __future__ import annotations

import re
from dataclasses import dataclass

CODENAMES = {
    "ubuntu 20.04": "focal",
    "ubuntu 22.04": "jammy",
    "ubuntu 24.04": "noble",
    "ubuntu 26.04": "resolute",
    "debian 11": "bullseye",
    "debian 12": "bookworm",
    "debian 13": "trixie",
}
KNOWN = (
    ("ubuntu", "ubuntu", "deb", r"Ubuntu (\d+\.\d+)"),
    ("debian", "debian", "deb", r"Debian GNU/Linux (\d+)"),
    ("amzn", "amazon", "rpm", r"Amazon Linux (\d+)"),
    ("fedora", "fedora", "rpm", r"Fedora Linux (\d+)"),
)
"""ID of os-release, the vendor in package URLs of Amazon Inspector, kind of packages, PRETTY_NAME."""


@dataclass(frozen=True)
class System:
    """A distribution: ID and VERSION_ID as its os-release has them."""

    id: str
    version: str
    packages: str
    """The kind of its packages: `deb` or `rpm`."""
    vendor: str
    """What Amazon Inspector calls it in package URLs."""

    @property
    def codename(self) -> str:
        """What Amazon Inspector names the release by: `jammy`, or the version."""
        return CODENAMES.get(f"{self.id} {self.version}", self.version)


def system(pretty: str) -> System | None:
    """The distribution that a PRETTY_NAME such as `Ubuntu 22.04.5 LTS` names; None for an unknown one."""
    for id_, vendor, packages, pattern in KNOWN:
        if found := re.match(pattern, pretty):
            return System(id_, found[1], packages, vendor)
    return None


def named(id_: str, version: str) -> System | None:
    """The distribution of an ID and a VERSION_ID; None for an unknown one."""
    for known, vendor, packages, _ in KNOWN:
        if known == id_:
            return System(id_, version, packages, vendor)
    return None
