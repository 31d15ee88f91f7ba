"""Apply a profile's waivers: a failure that somebody accepted until a day does not stand in the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from bake.checks.result import Check, Waiver


def waive(checks: Iterable[Check], waivers: Sequence[Waiver], today: date) -> tuple[Check, ...]:
    """Mark failures with a waiver as waived; one whose waiver has ended stays a failure and says so.

    A check that was not run is not waived: nobody knows what is accepted.
    """
    by_check = {waiver.check: waiver for waiver in waivers}
    return tuple(_waived(check, by_check.get(check.id), today) for check in checks)


def _waived(check: Check, waiver: Waiver | None, today: date) -> Check:
    if waiver is None or check.outcome != "failed":
        return check
    if waiver.until >= today:
        return check.model_copy(update={"outcome": "waived", "waiver": waiver})
    ended = f"its waiver by {waiver.approved_by} ended on {waiver.until}"
    return check.model_copy(update={"waiver": waiver, "reason": f"{check.reason}\n{ended}"})


def stale(checks: Sequence[Check], waivers: Sequence[Waiver]) -> list[str]:
    """Say which waivers no check needed, so that somebody removes them."""
    needed = {check.id for check in checks if check.waiver is not None}
    ran = {check.id for check in checks}
    return [
        f"the waiver of {waiver.check} is not needed any more: the check did not fail"
        for waiver in waivers
        if waiver.check in ran - needed
    ]
