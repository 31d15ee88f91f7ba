"""Everything in the account that is a bake's, with what it costs. Asks, and judges nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime

from bake.account.answers import Unanswered, ask
from bake.account.price_list import Price
from bake.account.prices import on_demand_hour, snapshot_month, volume_month
from bake.aws import Aws
from bake.background import start
from bake.lifecycle import machines, services
from bake.lifecycle.holding import Holding
from bake.lifecycle.kinds import Kind

MONTH = 730.0  # hours, as AWS's own calculator counts


@dataclass(frozen=True)
class Inventory:
    """What there was `at`, by AWS's clock. `unanswered`: what could not be looked at, and why."""

    at: datetime
    holdings: tuple[Holding, ...]
    unanswered: Mapping[str, str] = field(default_factory=dict)

    def of(self, run: str) -> tuple[Holding, ...]:
        """What one run holds."""
        return tuple(held for held in self.holdings if held.run == run)


@dataclass(frozen=True)
class Question:
    """A kind, and the account with the clients of the region where it is asked for."""

    kind: Kind
    aws: Aws

    @property
    def region(self) -> str:
        """The region where it is asked for."""
        return self.aws.worker_region if self.kind in services.KINDS else self.aws.region

    def matches(self, held: Holding) -> bool:
        """Whether this is the question that finds a thing."""
        return (self.kind.name, self.region) == (held.kind, held.region)

    @property
    def name(self) -> str:
        """How a missing answer is called."""
        return f"{self.kind.plural} in {self.region}"


def questions(aws: Aws) -> list[Question]:
    """All kinds, in the order of their removal. The Scheduler's groups may be in either region.

    AMIs and snapshots are also asked for in the regions that AMIs are copied to.
    """
    both = [aws] if aws.region == aws.worker_region else [aws, aws.at_home()]
    copied = [aws.within(region) for region in aws.copied if region != aws.region]
    return [
        *(Question(kind, aws) for kind in machines.KINDS),
        *(Question(kind, there) for there in copied for kind in machines.COPIED),
        *(Question(services.SCHEDULE_GROUPS, one) for one in both),
        *(Question(kind, aws) for kind in services.KINDS),
    ]


def take(aws: Aws, *, prices: bool = True, only: Iterable[Question] | None = None) -> Inventory:
    """Ask all questions, or `only` some, side by side; one that gets no answer hides no other."""
    at, chosen = aws.now(), questions(aws) if only is None else only
    asked = [(one, start(lambda one=one: ask(lambda: one.kind.ask(one.aws)))) for one in chosen]  # type: ignore[misc]
    holdings: list[Holding] = []
    unanswered = {}
    for one, answer in asked:
        found = answer.result()
        if isinstance(found, Unanswered):
            unanswered[one.name] = found.why
        else:
            holdings += found
    unanswered |= {f"the tags of {held.kind} {held.name}": held.unread for held in holdings if held.unread}
    return Inventory(at, tuple(priced(aws, holdings) if prices else holdings), unanswered)


def priced(aws: Aws, holdings: Iterable[Holding]) -> list[Holding]:
    """The holdings with their dollars a month, where AWS tells the price. A snapshot's is its upper bound."""
    found = list(holdings)
    types = {held.type for held in found if held.kind == "instance" and held.status != "stopped"}
    disks = {held.type for held in found if held.kind == "volume"}
    hours = {name: start(lambda name=name: on_demand_hour(name, aws)) for name in types}  # type: ignore[misc]
    months = {name: start(lambda name=name: volume_month(name, aws)) for name in disks}  # type: ignore[misc]
    if any(held.kind == "snapshot" for held in found):
        months[""] = start(lambda: snapshot_month(aws))
    return [replace(held, dollars=_dollars(held, hours, months)) for held in found]


Answers = Mapping[str, Future[Price]]


def _dollars(held: Holding, hours: Answers, months: Answers) -> float | None:
    if held.kind == "instance":
        return 0.0 if held.status == "stopped" else _times(hours[held.type], MONTH)
    if held.kind in ("volume", "snapshot") and held.size is not None:
        return _times(months[held.type], held.size)
    return 0.0  # nothing, or next to nothing, without traffic


def _times(price: Future[Price], count: float) -> float | None:
    dollars = price.result()
    return dollars * count if isinstance(dollars, float | int) else None
