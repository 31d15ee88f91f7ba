"""Which security updates came out for an image: its packages against what its distribution publishes now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from bake.checks.inventory import Inventory, Source
from bake.updates import apt, rpm, versions
from bake.updates.fixes import Fix
from bake.updates.held import is_held
from bake.updates.web import Unreachable, Web

SHOWN = 5  # updates in a sentence


@dataclass(frozen=True)
class Update:
    """A package of an image, and the version that its distribution fixed it in."""

    package: str
    installed: str
    available: str
    advisory: str = ""

    def __str__(self) -> str:
        by = f" ({self.advisory})" if self.advisory else ""
        return f"{self.package} {self.installed} → {self.available}{by}"


@dataclass(frozen=True)
class Pending:
    """The updates, and what could not be found out: then there may be more."""

    updates: tuple[Update, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The updates on one line; only to be asked where there are some."""
        number = len(self.updates)
        more = f" and {number - SHOWN} more" if number > SHOWN else ""
        shown = ", ".join(map(str, self.updates[:SHOWN]))
        return f"{number} security update{'' if number == 1 else 's'}: {shown}{more}"


def pending(inventory: Inventory, web: Web | None = None) -> Pending:
    """The security updates that are not in an inventory, by the indexes that its machine uses.

    What a bake leaves alone counts as little as what the image holds: a rebuild would not install it.
    """
    if "packages" in inventory.incomplete or not inventory.packages:
        return Pending(unknown=("security updates, as the packages of the image were not recorded",))
    if not inventory.sources:
        return Pending(unknown=("security updates, as no index of them was recorded with the image",))
    web, found, unknown = web or Web(), list[Fix](), list[str]()
    for source in inventory.sources:
        try:
            found += _fixes(source, web)
        except Unreachable as error:
            unknown.append(f"security updates of {_called(source)}: {error.message}")
    unknown += [f"whether {host} itself told them, which speaks no TLS" for host in sorted(web.plain)]
    return Pending(tuple(_newer(inventory, found)), tuple(unknown))


def _fixes(source: Source, web: Web) -> list[Fix]:
    return list((apt if source.kind == "apt" else rpm).fixes(source, web))


def _called(source: Source) -> str:
    return source.suite or urlsplit(source.url).hostname or source.url


def _newer(inventory: Inventory, fixes: Iterable[Fix]) -> Iterable[Update]:
    """The newest fix of each package that is newer than what is installed, by name."""
    found: dict[str, Update] = {}
    published = list(fixes)
    for kind, order in (("deb", versions.dpkg), ("rpm", versions.rpm)):
        installed = _installed(inventory, kind, order)
        for fix in published:
            has = installed.get((fix.package, fix.arch))
            if has is None or order(fix.version, has) <= 0:
                continue
            before = found.get(fix.package)
            if before is None or order(fix.version, before.available) > 0:
                found[fix.package] = Update(fix.package, has, fix.version, fix.advisory)
    return [found[name] for name in sorted(found)]


def _installed(inventory: Inventory, kind: str, order: versions.Order) -> Mapping[tuple[str, str], str]:
    """Name and architecture -> the newest installed version, of what a bake would upgrade."""
    found: dict[tuple[str, str], str] = {}
    for one in inventory.packages:
        key = (one.name, one.arch)
        if one.kind != kind or one.name in inventory.held or is_held(one.name):
            continue
        if key not in found or order(one.version, found[key]) > 0:
            found[key] = one.version
    return found
