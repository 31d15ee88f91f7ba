"""Hostile bases: AMIs to rehearse with, changed as hardening guides, vendors and years of use change them.

Each is a stand-in that a script of `scripts/` changes. The script runs in the tree of a new root volume when
an instance is launched from the AMI (machines/hostile.py), so listing costs nothing and no disk is kept. They
belong to the account (`owner: self`), so a profile selects one by its name:

    base:
      name: Hostile base umask-077 (Ubuntu)
      owner: self

These machines have no kernel of their own, no udev, no audit and no second Python. A script that needs one
of these uses a stand-in, and says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bake.errors import UsageError
from bake.localcloud.images.hostile.catalogue import HOSTILE, NAMED, Hostile

__all__ = ["HOSTILE", "Hostile", "HostileBase", "find", "hostile_bases"]

SCRIPTS = Path(__file__).with_name("scripts")


@dataclass(frozen=True)
class HostileBase:
    """A hostile base on one operating system: an AMI of the local cloud."""

    hostile: Hostile
    system: str

    @property
    def name(self) -> str:
        """The AMI's name, for `base.name`."""
        return f"Hostile base {self.hostile.name} ({self.hostile.called or NAMED[self.system]})"

    @property
    def id(self) -> str:
        """The AMI's id, derived from its name so that it is known before a cloud is up."""
        return f"ami-{hashlib.sha256(self.name.encode()).hexdigest()[:17]}"

    @property
    def owner(self) -> str:
        """The AMI's owner, for `base.owner`."""
        return "amazon" if self.hostile.hidden else "self"

    @property
    def facts(self) -> dict[str, str]:
        """Its fields in `bake local bases --json`."""
        of = self.hostile
        ends = {"outcome": "stops" if of.stops else "works", "reason": of.stops}
        about = {"name": self.name, "owner": self.owner, "id": self.id, "system": self.system}
        return {"base": of.name, **about, "why": of.why, **ends}

    @property
    def script(self) -> str:
        """The shell script that runs in the tree; empty if only the AMI itself is hostile."""
        file = SCRIPTS / f"{self.hostile.script or self.hostile.name}.sh"
        return file.read_text(encoding="utf-8") if file.exists() else ""


def hostile_bases() -> Iterator[HostileBase]:
    """All hostile bases, once per system that they are for."""
    return (HostileBase(hostile, system) for hostile in HOSTILE for system in hostile.systems)


def find(name: str, system: str = "ubuntu") -> HostileBase:
    """The base of this name, like "umask-077"; UsageError where there is none."""
    for one in hostile_bases():
        if (one.hostile.name, one.system) == (name, system):
            return one
    raise UsageError(f"there is no hostile base {name} for {system}", hint="bake local bases lists them")
