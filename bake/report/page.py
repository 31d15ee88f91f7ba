"""What report.html shows beside the report's own fields: anchors, counts, days left, changes by kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from bake.checks.result import GROUPS, SEVERITIES, Check, Group, Outcome, Waiver
from bake.report.model import Change, Changes, Inventory, Package, Report, Vulnerability

OUTCOMES: tuple[Outcome, ...] = ("failed", "not run", "waived", "passed", "not applicable")
"""In the order in which a reviewer wants to see them."""
KINDS = (
    *("image", "check", "waiver", "version", "weight", "user", "group", "port", "setuid", "unit"),
    *("sysctl", "repository", "package", "time", "cost"),
)
"""Kinds of changes, the weightiest first; others follow."""
VULNERABLE = ("critical", "high", "medium", "low", "negligible", "unknown")


@dataclass(frozen=True)
class Row:
    """A check and the anchor of its details on the page."""

    check: Check
    anchor: str


@dataclass(frozen=True)
class CheckGroup:
    """The checks of one group, failed ones first."""

    name: Group
    rows: tuple[Row, ...]
    left_out: int
    counts: Counter[Outcome]


@dataclass(frozen=True)
class OpenWaiver:
    """A waiver with the days that it still counts; null where no day of the report is known."""

    waiver: Waiver
    days: int | None
    row: Row | None
    """The check that it waives."""

    @property
    def used(self) -> bool:
        return self.row is None or self.row.check.waiver is not None


@dataclass(frozen=True)
class KindOfChange:
    """The changes of one kind, those that were not meant first."""

    kind: str
    changes: tuple[Change, ...]


def rows(checks: Iterable[Check]) -> tuple[Row, ...]:
    """Give each check an anchor: its id, and its moment where an earlier one has that id."""
    taken: set[str] = set()
    found = []
    for check in checks:
        plain = re.sub(r"[^A-Za-z0-9._-]", "-", check.id)[:80] or "check"
        anchor = plain if plain not in taken else f"{plain}@{check.moment}"
        number = 2
        while anchor in taken:
            anchor = f"{plain}@{check.moment}-{number}"
            number += 1
        taken.add(anchor)
        found.append(Row(check, anchor))
    return tuple(found)


def groups(all_rows: Sequence[Row], most: int) -> tuple[CheckGroup, ...]:
    """Sort the checks by group; of each at most so many, and never a failed one before a passed one."""
    found = []
    for name in GROUPS:
        own = sorted((row for row in all_rows if row.check.about.group == name), key=_weight)
        if own:
            counts = Counter(row.check.outcome for row in own)
            found.append(CheckGroup(name, tuple(own[:most]), max(len(own) - most, 0), counts))
    return tuple(found)


def _weight(row: Row) -> tuple[int, int]:
    check = row.check
    return OUTCOMES.index(check.outcome), SEVERITIES.index(check.about.severity)


def failures(all_rows: Sequence[Row]) -> tuple[Row, ...]:
    """The checks that failed, critical ones first."""
    return tuple(sorted((row for row in all_rows if row.check.outcome == "failed"), key=_weight))


def not_run(all_rows: Sequence[Row]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """The checks that were not run, by reason: often one reason keeps many from running."""
    reasons: dict[str, list[Row]] = {}
    for row in all_rows:
        if row.check.outcome == "not run":
            reasons.setdefault(row.check.reason, []).append(row)
    return tuple((reason, tuple(found)) for reason, found in reasons.items())


def day_of(report: Report) -> date | None:
    """The day on which the run ended, or began: the report says the same whenever it is written."""
    for text in (report.run.finished, report.run.started):
        try:
            return date.fromisoformat((text or "")[:10])
        except ValueError:
            continue
    return None


def took(report: Report) -> float | None:
    """Seconds from the start of the run to its end, if both are known."""
    try:
        ends = [datetime.fromisoformat(text or "") for text in (report.run.started, report.run.finished)]
        return (ends[1] - ends[0]).total_seconds()
    except (ValueError, TypeError):  # no time, or one of two without a zone
        return None


def waivers(report: Report, all_rows: Sequence[Row]) -> tuple[OpenWaiver, ...]:
    """All waivers, by their last day: the profile's, and those that checks and findings name."""
    named = [row.check.waiver for row in all_rows]
    named += [one.waiver for one in report.scan.vulnerabilities] if report.scan else []
    found = list(dict.fromkeys([*report.waivers, *(waiver for waiver in named if waiver)]))
    today = day_of(report)
    return tuple(
        OpenWaiver(waiver, (waiver.until - today).days if today else None, _waived(waiver, all_rows))
        for waiver in sorted(found, key=lambda waiver: waiver.until)
    )


def _waived(waiver: Waiver, all_rows: Sequence[Row]) -> Row | None:
    same = [row for row in all_rows if row.check.id == waiver.check]
    return next((row for row in same if row.check.waiver), next(iter(same), None))


def kinds(changes: Changes) -> tuple[KindOfChange, ...]:
    """Sort changes by kind."""
    found: dict[str, list[Change]] = {}
    for change in changes.changes:
        found.setdefault(change.kind, []).append(change)
    order = sorted(found, key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind))
    return tuple(
        KindOfChange(kind, tuple(sorted(found[kind], key=lambda change: change.meant))) for kind in order
    )


def meant(changes: Changes) -> Changes:
    """The changes without those that are findings."""
    return changes.model_copy(update={"changes": tuple(change for change in changes.changes if change.meant)})


def foremost(changes: Changes, most: int) -> tuple[Change, ...]:
    """The weightiest changes, of each kind some, so that many packages do not hide a new user."""
    shares = [list(kind.changes) for kind in kinds(changes)]
    found: list[Change] = []
    while len(found) < most and any(shares):
        for share in shares:
            if share and len(found) < most:
                found.append(share.pop(0))
    order = {kind.kind: number for number, kind in enumerate(kinds(changes))}
    return tuple(sorted(found, key=lambda change: order[change.kind]))


def image_inventory(report: Report) -> Inventory | None:
    """What is on the image: the sealed disk's inventory, or the best that there is."""
    known = {inventory.moment: inventory for inventory in report.inventories}
    return next((known[moment] for moment in ("sealed", "booted", "base") if moment in known), None)


def versions(inventories: Sequence[Inventory]) -> tuple[str, ...]:
    """The names of all versions, as they come."""
    return tuple(dict.fromkeys(name for inventory in inventories for name in inventory.versions))


def packages(inventory: Inventory) -> tuple[tuple[str, tuple[Package, ...]], ...]:
    """Packages by kind, Python's first, each by name."""
    found: dict[str, list[Package]] = {}
    for package in sorted(inventory.packages, key=lambda package: (package.name, package.version)):
        found.setdefault(package.kind, []).append(package)
    return tuple(
        (kind, tuple(found[kind])) for kind in sorted(found, key=lambda kind: (kind != "python", kind))
    )


def by_severity(vulnerabilities: Iterable[Vulnerability]) -> tuple[Vulnerability, ...]:
    """Critical ones first; a severity that is not known stands at the end."""
    order = {name: number for number, name in enumerate(VULNERABLE)}
    return tuple(sorted(vulnerabilities, key=lambda one: (order.get(one.severity, len(order)), one.id)))
