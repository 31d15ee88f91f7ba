"""What a run cost so far: the hours of its instances by its journal, times the prices of its plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bake.journal import thing


@dataclass(frozen=True)
class Cost:
    """Hours and dollars of one instance; `dollars` is None where its price is not known."""

    what: str
    hours: float
    dollars: float | None


@dataclass(frozen=True)
class Costs:
    """What the instances of a run cost, and the dollars a month of what is kept (None: not known)."""

    instances: tuple[Cost, ...]
    kept_month: float | None

    @property
    def hours(self) -> float:
        return sum(one.hours for one in self.instances)

    @property
    def dollars(self) -> float | None:
        """The sum; None if one price is not known."""
        found = [one.dollars for one in self.instances]
        return None if None in found else sum(one for one in found if one is not None)

    def __str__(self) -> str:
        spent, month = f"{self.hours:.2f} instance hours, {dollars(self.dollars)}", self.kept_month
        kept = "" if month is None else f"; the AMI's snapshot costs {dollars(month)} a month at most"
        return spent + kept


def dollars(amount: float | None) -> str:
    """Format an amount."""
    return "price not known" if amount is None else f"${amount:,.2f}"


def of(entries: Iterable[Mapping[str, Any]], now: datetime) -> Costs:
    """Add up a journal's entries; what was neither removed nor interrupted runs until `now`."""
    prices: Mapping[str, float | None] = {}
    meters: dict[str, _Meter] = {}
    for entry in entries:
        at, what = datetime.fromisoformat(entry["at"]), thing(entry.get("what", ""))
        if entry["event"] == "run":
            prices = entry.get("prices", {})
        elif entry["event"] == "created" and entry.get("kind") == "instance":
            meters.setdefault(what, _Meter(entry["name"], at))
        elif what in meters and entry["event"] in ("removed", "interrupted"):
            meters[what].stop(at)
        elif what in meters and entry["event"] == "started":
            meters[what].since = meters[what].since or at
    found = []
    for what, meter in meters.items():
        meter.stop(now)
        price = prices.get("builder_hour" if meter.name.endswith("-builder") else "worker_hour")
        found.append(Cost(what, meter.hours, None if price is None else meter.hours * price))
    return Costs(tuple(found), prices.get("kept_month"))


@dataclass
class _Meter:
    """Counts an instance's hours; `since` is None while EC2 has it stopped."""

    name: str
    since: datetime | None
    hours: float = 0.0

    def stop(self, at: datetime) -> None:
        if self.since is not None:
            self.hours += max((at - self.since).total_seconds(), 0) / 3600
        self.since = None
