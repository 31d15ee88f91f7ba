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
    """Add up a journal's entries; what was not removed runs until `now`."""
    prices: Mapping[str, float | None] = {}
    began: dict[str, tuple[str, datetime]] = {}
    ended: dict[str, datetime] = {}
    for entry in entries:
        at = datetime.fromisoformat(entry["at"])
        if entry["event"] == "run":
            prices = entry.get("prices", {})
        elif entry["event"] == "created" and entry.get("kind") == "instance":
            began.setdefault(thing(entry["what"]), (entry["name"], at))
        elif entry["event"] == "removed":
            ended[thing(entry["what"])] = at
    found = []
    for what, (name, start) in began.items():
        hours = max((ended.get(what, now) - start).total_seconds(), 0) / 3600
        price = prices.get("builder_hour" if name.endswith("-builder") else "worker_hour")
        found.append(Cost(what, hours, None if price is None else hours * price))
    return Costs(tuple(found), prices.get("kept_month"))
