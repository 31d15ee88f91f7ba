"""Which security updates came out for an image: its packages against what its distribution publishes now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from bake.checks.inventory import Inventory, Source
from bake.updates import apt, rpm
from bake.updates.installed import Fix, Installed
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
    web, installed = web or Web(), Installed.of(inventory)
    found, unknown = list[Fix](), list[str]()
    for source in inventory.sources:
        try:
            found += (apt if source.kind == "apt" else rpm).fixes(source, installed, web)
        except Unreachable as error:
            unknown.append(f"security updates of {_called(source)}: {error.message}")
    unknown += [f"whether {host} itself told them, which speaks no TLS" for host in sorted(web.plain)]
    return Pending(tuple(_updates(installed, found)), tuple(unknown))


def _called(source: Source) -> str:
    return source.suite or urlsplit(source.url).hostname or source.url


def _updates(installed: Installed, fixes: Iterable[Fix]) -> Iterator[Update]:
    """The newest fix of each package, by name."""
    newest: dict[str, Fix] = {}
    for fix in fixes:
        before = newest.get(fix.package)
        if before is None or installed.order(fix.version, before.version) > 0:
            newest[fix.package] = fix
    for name, fix in sorted(newest.items()):
        yield Update(name, installed.of_fix(fix) or "", fix.version, fix.advisory)
