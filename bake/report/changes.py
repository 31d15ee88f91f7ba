"""How two inventories differ, field by field. Nobody judges here whether a change was meant (`meant`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bake import layout
from bake.checks.inventory import Inventory, Package
from bake.report.model import Change

NOT_COMPARED = "(not compared)"
"""The name of a change that stands for a field that could not be recorded."""

# Kind of a change -> the fields of an inventory that it needs.
FIELDS = {
    "package": "packages",
    "hold": "packages",
    "user": "users",
    "group": "groups",
    "unit": "units",
    "port": "ports",
    "setuid": "setuid",
    "sysctl": "sysctl",
    "kernel parameters": "kernel_parameters",
    "repository": "repositories",
    "version": "versions",
    "os": "os",
}


def changes(before: Inventory, after: Inventory) -> tuple[Change, ...]:
    """Every difference, by kind and name.

    A field that one of the two could not record is one change, named NOT_COMPARED: what did not answer is not
    taken for empty.
    """
    return tuple(change for kind in FIELDS for change in _of_kind(kind, before, after))


def _of_kind(kind: str, before: Inventory, after: Inventory) -> Iterator[Change]:
    field = FIELDS[kind]
    missing = [one for one in (before, after) if field in one.incomplete]
    if missing and kind == "hold":  # the packages have said so
        return
    if missing:
        told = ("not recorded" if one in missing else "recorded" for one in (before, after))
        yield Change(kind=kind, name=NOT_COMPARED, before=next(told), after=next(told), meant=False)
        return
    yield from compared(kind, contents(before, kind), contents(after, kind))


def compared(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    """What differs between two mappings, by name."""
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Change(kind=kind, name=name, before=before.get(name), after=after.get(name))


def contents(inventory: Inventory, kind: str) -> Mapping[str, str]:
    """Name -> what identifies it."""
    match kind:
        case "package":
            return packages(inventory)
        case "hold":
            return dict.fromkeys(inventory.held, "held")
        case "os" | "kernel parameters":
            text = getattr(inventory, FIELDS[kind])
            return {kind: text} if text else {}
        case _:
            found: Mapping[str, str] = getattr(inventory, FIELDS[kind])
            return found


def packages(inventory: Inventory) -> dict[str, str]:
    """`deb openssl`, `python torch` or `python apt in FOLDER` -> version; some have several at once."""
    found: dict[str, set[tuple[str, str]]] = {}
    for one in inventory.packages:
        found.setdefault(name_of(one), set()).add((one.version, one.arch))
    return {name: ", ".join(_versions(them)) for name, them in found.items()}


def _versions(them: set[tuple[str, str]]) -> list[str]:
    """With their architecture where it tells two of them apart."""
    several = len({arch for _, arch in them}) > 1
    return sorted(f"{version} ({arch})" if several else version for version, arch in them)


def name_of(package: Package) -> str:
    """How a change calls a package. A Python package of no folder is one of the worker's environment."""
    if package.kind != "python":
        return f"{package.kind} {package.name}"
    name = f"python {spelling(package.name)}"
    return name if package.where in ("", layout.VENV) else f"{name} in {package.where}"


def spelling(name: str) -> str:
    """The one spelling of a Python package's name, as locks have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
