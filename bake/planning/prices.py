"""Take prices from the account's answers."""

from __future__ import annotations

from dataclasses import dataclass

from bake.account.answers import Unanswered
from bake.account.prices import PriceFacts
from bake.planning.findings import Findings
from bake.planning.hardware import Types
from bake.profile import Profile


@dataclass(frozen=True)
class Prices:
    """Dollars: an hour of the builder and of a worker, a GB-month of snapshot; None where it is not known.

    `fast_restore` is an hour of Fast Snapshot Restore in a zone.
    """

    builder_hour: float | None
    worker_hour: float | None
    snapshot_month: float | None
    fast_restore: float | None = None


def find(profile: Profile, types: Types, facts: PriceFacts, findings: Findings) -> Prices:
    """Return all prices. If the price list did not answer, note that once."""
    builder, worker = types.builder[0].name, types.worker[0].name
    spot = profile.builder.market == "spot"
    hours: dict[str, float | None] = {}
    for name in dict.fromkeys((builder, worker)):
        answer = facts.hours[name]
        hours[name] = findings.answered(f"the spot price of {name}" if spot else "prices", answer)
        if isinstance(answer, Unanswered) and not spot:
            return Prices(None, None, None)
    snapshot = findings.answered("the price of snapshots", facts.snapshot)
    restore = None
    if not isinstance(facts.snapshot, Unanswered):
        restore = findings.answered("the price of Fast Snapshot Restore", facts.fast_restore)
    return Prices(hours[builder], hours[worker], snapshot, restore)
