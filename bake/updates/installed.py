"""What an image holds of its distribution, and whether a fix is newer than that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bake.checks.inventory import Inventory, Package
from bake.updates import versions
from bake.updates.held import is_held


@dataclass(frozen=True)
class Fix:
    """A version of a package that its distribution published for security; `advisory` is its id, if told."""

    package: str
    arch: str
    version: str
    advisory: str = ""


@dataclass(frozen=True)
class Installed:
    """Packages by name and architecture -> the newest version; without what no bake would upgrade."""

    newest: Mapping[tuple[str, str], str]
    order: versions.Order

    @classmethod
    def of(cls, inventory: Inventory) -> Installed:
        """Of the operating system's package manager: what it holds is left out, as are kernel and drivers."""
        kinds = {one.kind for one in inventory.packages}
        kind, order = ("rpm", versions.rpm) if "rpm" in kinds else ("deb", versions.dpkg)
        held = set(inventory.held)
        free = (one for one in inventory.packages if one.kind == kind and one.name not in held)
        return cls(_newest((one for one in free if not is_held(one.name)), order), order)

    @property
    def names(self) -> frozenset[str]:
        """The packages' names."""
        return frozenset(name for name, _ in self.newest)

    def of_fix(self, fix: Fix) -> str | None:
        """The installed version of a fix's package; None if that is not there, or as new."""
        has = self.newest.get((fix.package, fix.arch))
        return has if has is not None and self.order(fix.version, has) > 0 else None


def _newest(packages: Iterable[Package], order: versions.Order) -> Mapping[tuple[str, str], str]:
    """Of packages that are there several times, as a kernel's are, the newest."""
    found: dict[tuple[str, str], str] = {}
    for one in packages:
        key = (one.name, one.arch)
        if key not in found or order(one.version, found[key]) > 0:
            found[key] = one.version
    return found
