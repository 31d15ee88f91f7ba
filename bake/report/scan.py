"""Vulnerabilities of an image: what a scanner found in its SBOM, what it did not look at, and what is waived.

A scanner's silence is no proof: it looks only at kinds of packages that it knows, of distributions that its
database has. What it does not cover is listed as such, never as free of vulnerabilities.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bake.checks.result import SEVERITIES, Waiver
from bake.errors import UsageError
from bake.report.model import Scan, Vulnerability

SBOM = "sbom.cdx.json"
FILE = "facts/scan.json"
MODEL = "machine-learning-model"
SYSTEM_PACKAGES = ("deb", "rpm")
ORDER = (*SEVERITIES, "negligible", "unknown")


@dataclass(frozen=True)
class Answer:
    """What a scanner said. `notes` name what it left out of its answer."""

    scanner: str
    version: str
    database: str
    vulnerabilities: tuple[Vulnerability, ...]
    covered: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bom:
    """The SBOM of a run."""

    content: Mapping[str, Any]

    @classmethod
    def read(cls, directory: Path) -> Bom:
        """The SBOM of a run directory; UsageError if there is none."""
        try:
            return cls(json.loads((directory / SBOM).read_text(encoding="utf-8")))
        except FileNotFoundError:
            hint = "it is written when the disk is sealed; bake runs --all shows how far the run came"
            raise UsageError(f"run {directory.name} has no {SBOM}", hint=hint) from None

    @property
    def components(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.content.get("components", ())
        return found

    @property
    def distribution(self) -> str | None:
        """The id of the distribution, such as `ubuntu`."""
        for component in self.components:
            if component["type"] == "operating-system":
                return str(component["name"])
        return None

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """The packages of a kind."""
        return [component for component in self.components if kind_of(component) == kind]

    def kinds(self) -> tuple[str, ...]:
        """The kinds of packages that it lists."""
        return tuple(sorted({kind for component in self.components if (kind := kind_of(component))}))

    def coverable(self, kinds: Sequence[str], distributions: Sequence[str]) -> tuple[str, ...]:
        """Of the kinds that a scanner knows, those that are there and that it can tell where they belong."""
        known = self.distribution in distributions
        return tuple(
            kind for kind in self.kinds() if kind in kinds and (known or kind not in SYSTEM_PACKAGES)
        )


def kind_of(component: Mapping[str, Any]) -> str | None:
    """The kind of a package; None for the distribution."""
    return MODEL if component["type"] == MODEL else property_of(component, "bake:kind")


def property_of(component: Mapping[str, Any], name: str) -> str | None:
    """The value of a component's property."""
    for one in component.get("properties", ()):
        if one["name"] == name:
            return str(one["value"])
    return None


def concluded(
    bom: Bom, answer: Answer, waivers: Iterable[Waiver], fail_on: str | None, now: datetime | None = None
) -> Scan:
    """The scan of an SBOM, with the waivers that count today."""
    now = now or datetime.now(UTC)
    return Scan(
        scanner=answer.scanner,
        version=answer.version,
        database=answer.database,
        at=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        covered=answer.covered,
        not_covered=(*_not_covered(bom, answer), *answer.notes),
        fail_on=fail_on,
        vulnerabilities=_waived(answer.vulnerabilities, waivers, now.date()),
    )


def failing(scan: Scan) -> tuple[Vulnerability, ...]:
    """The vulnerabilities at or above the severity `fail_on` that nobody waived; unknown ones are not."""
    if scan.fail_on is None:
        return ()
    severe = ORDER[: ORDER.index(scan.fail_on) + 1]
    return tuple(one for one in scan.vulnerabilities if one.severity in severe and one.waiver is None)


def _not_covered(bom: Bom, answer: Answer) -> Iterable[str]:
    yield from (kind for kind in bom.kinds() if kind not in answer.covered)
    for kind in answer.covered:
        packages = bom.of_kind(kind)
        if unknown := sum("purl" not in one for one in packages):
            yield f"{unknown:,} of {len(packages):,} {kind} packages, whose names or versions are none"
        # Databases know the source packages of these, not what was built from them.
        if kind == "deb" and (unsourced := sum(not property_of(one, "bake:source") for one in packages)):
            yield f"the sources of {unsourced:,} of {len(packages):,} deb packages, which are not recorded"


def _waived(
    found: Iterable[Vulnerability], waivers: Iterable[Waiver], today: date
) -> tuple[Vulnerability, ...]:
    """Each vulnerability once, the worst first."""
    counting = {waiver.check: waiver for waiver in waivers if waiver.until >= today}
    each = {(one.id, one.package, one.version): one for one in found}.values()
    ordered = sorted(each, key=lambda one: (ORDER.index(one.severity), one.package, one.id, one.version))
    return tuple(one.model_copy(update={"waiver": counting.get(one.id)}) for one in ordered)
