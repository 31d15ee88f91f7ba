"""Judge what may be swept. Pure: an inventory becomes verdicts.

A thing is swept only if its own tags say that it is a draft of a run whose lease has ended, and if nothing
uses it but what is swept with it. Whatever else is true of it, it stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bake.creation import EXPIRES_TAG
from bake.lifecycle.holding import Holding, shown

KEPT = ("good", "unproven", "revoked")
IMAGES = ("AMI", "snapshot")
Outcome = Literal["sweep", "living", "finished", "left alone", "prune", "keep"]


@dataclass(frozen=True)
class Verdict:
    """`why` continues "swept, because …" or "stays, because …". The last two outcomes are retention.py's."""

    held: Holding
    outcome: Outcome
    why: str


def judge(holdings: Iterable[Holding], now: datetime, going: Collection[str] = ()) -> list[Verdict]:
    """A verdict on each, given what else there is; in the same order. `going` is being swept already."""
    listed = list(holdings)
    leases, finished, swept = leases_of(listed), finished_runs(listed), set(going)
    verdicts: dict[int, Verdict] = {}
    # What a use depends on comes first: instances, then what they use; AMIs, then their snapshots.
    for index in sorted(range(len(listed)), key=lambda index: _RANK.get(listed[index].kind, 0)):
        verdicts[index] = _judge(listed[index], now, leases, finished, swept)
        if verdicts[index].outcome == "sweep":
            swept.add(listed[index].id)
    return [verdicts[index] for index in range(len(listed))]


_RANK = {"spot request": -3, "instance": -2, "network interface": -1, "AMI": -1}


def leases_of(holdings: Iterable[Holding]) -> Mapping[str, datetime]:
    """When each run's lease ends: the latest expiry of its things, which are renewed one after the other."""
    leases: dict[str, datetime] = {}
    for held in holdings:
        if held.run and held.expires is not None and held.state not in KEPT:
            leases[held.run] = max(held.expires, leases.get(held.run, held.expires))
    return leases


def finished_runs(holdings: Iterable[Holding]) -> Mapping[tuple[str, str], str]:
    """The runs whose image is kept, by run and region, and who says so: its AMI or one of its snapshots.

    A run makes one AMI in a region; copies of it in others become good by themselves. The tags of AMI and
    snapshots are written together; if that failed half-way, or if the AMI was deregistered by hand, one that
    was written speaks for all.
    """
    images = (held for held in holdings if held.kind in IMAGES and held.run and held.state in KEPT)
    return {(held.run, held.region): f"{held.id} of the same image is {held.state}" for held in images}


def _judge(
    held: Holding,
    now: datetime,
    leases: Mapping[str, datetime],
    finished: Mapping[tuple[str, str], str],
    going: Collection[str],
) -> Verdict:
    if why := _not_ours(held):
        return Verdict(held, "left alone", why)
    if held.state in KEPT:
        return Verdict(held, "finished", f"it is {held.state}")
    if held.kind in IMAGES and (kept := finished.get((held.run, held.region))) is not None:
        return Verdict(held, "finished", kept)
    if why := _unclear(held):
        return Verdict(held, "left alone", why)
    ends = leases[held.run]
    if ends > now:
        return Verdict(held, "living", f"its run has a lease until {shown(ends)}")
    if users := [user for user in held.used_by if user not in going]:
        return Verdict(held, "left alone", f"{', '.join(users)} uses it")
    return Verdict(held, "sweep", f"its run's lease ended {shown(ends)}")


def _not_ours(held: Holding) -> str | None:
    if held.unread:
        return f"its tags could not be read: {held.unread}"
    return None if held.run else "only its name is like a bake's: it has no tag bake:run"


def _unclear(held: Holding) -> str | None:
    """What its tags lack to say that it is a draft with an end."""
    if held.state != "draft":
        return f"bake:state is {held.state!r}" if held.state else "it has no tag bake:state"
    if held.malformed:
        return f"bake:expires is no time: {held.tags[EXPIRES_TAG]!r}"
    return None if held.expires is not None else "it has no tag bake:expires"
