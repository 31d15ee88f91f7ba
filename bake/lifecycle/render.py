"""Show a preview and a sweep: as text for people, as JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bake.columns import table
from bake.creation import stamp
from bake.lifecycle.holding import Holding, shown
from bake.lifecycle.sweep import Preview, Swept
from bake.lifecycle.verdict import Verdict
from bake.profile.yaml_source import printable

HEADER = ("what", "id", "run", "profile", "lease ended", "what it is", "$ a month")
WIDEST = 60  # of a name, which may be anything


def as_text(seen: Sequence[Preview], swept: Sequence[Swept] | None) -> str:
    """What is swept and why, what it costs, what stays and why."""
    verdicts = [verdict for one in seen for verdict in one.verdicts]
    found = [one for one in verdicts if one.outcome == "sweep"]
    parts = [_left(found), _alone(verdicts), _living(verdicts)]
    if swept is not None:
        parts.append("\n".join(_done(swept)))
    elif found:
        parts.append("nothing was changed: add --yes to remove what runs left")
    return "\n\n".join(part for part in parts if part)


def _left(found: Sequence[Verdict]) -> str:
    if not found:
        return "no run whose lease has ended left anything"
    rows = [_row(verdict.held) for verdict in found]
    return f"left by runs whose lease has ended:\n{table(HEADER, rows)}\n{_sum(v.held for v in found)}"


def _row(held: Holding) -> tuple[str, ...]:
    size = f"{held.size} GiB" if held.size is not None else ""
    about = " ".join(word for word in (held.type, size, held.status) if word)
    ended = shown(held.expires) if held.expires else ""
    dollars = "?" if held.dollars is None else f"{held.dollars:,.2f}"
    name = held.id if held.kind != "queue" else held.name
    words = (held.kind, name, held.run, held.profile, ended, about, dollars)
    return tuple(printable(word, WIDEST) for word in words)


def _sum(found: Iterable[Holding]) -> str:
    listed = list(found)
    known = sum(held.dollars for held in listed if held.dollars is not None)
    unknown = sum(held.dollars is None for held in listed)
    least = f", and {unknown} whose price is not known" if unknown else ""
    return f"{len(listed)} in all: {known:,.2f} dollars a month{least}"


def _alone(verdicts: Sequence[Verdict]) -> str:
    lines = [_line(one) for one in verdicts if one.outcome == "left alone"]
    return "\n".join(["left alone:", *lines]) if lines else ""


def _line(verdict: Verdict) -> str:
    held = verdict.held
    name = held.id if held.id == held.name or not held.name else f"{held.id} ({held.name})"
    return f"  {held.kind} {printable(name, 2 * WIDEST)}: {printable(verdict.why, 3 * WIDEST)}"


def _living(verdicts: Sequence[Verdict]) -> str:
    runs = [(one.held.run, one.held.profile, one.why) for one in verdicts if one.outcome == "living"]
    counted = Counter(runs).items()
    lines = [
        f"  {printable(run, WIDEST)} ({printable(profile, WIDEST)}): {count} things; {why}"
        for (run, profile, why), count in counted
    ]
    return "\n".join(["runs that may be baking:", *lines]) if lines else ""


def _done(swept: Sequence[Swept]) -> list[str]:
    removed = sum(len(one.removed) for one in swept)
    gone = sum(len(one.gone) for one in swept)
    lines = [f"{removed} removed" + (f", {gone} gone already" if gone else "")]
    lines += [f"stays: {_line(verdict).strip()}" for one in swept for verdict in one.spared]
    return lines


def as_dict(seen: Sequence[Preview], swept: Sequence[Swept] | None) -> dict[str, Any]:
    """The same for programs. `outcome` is what the preview says; what was done is in `swept`, if it was."""
    verdicts = [verdict for one in seen for verdict in one.verdicts]
    costs = [one.held.dollars for one in verdicts if one.outcome == "sweep"]
    found: dict[str, Any] = {
        "at": stamp(max(one.inventory.at for one in seen)),
        "things": [_thing(verdict) for verdict in verdicts],
        "dollars_a_month": sum(cost for cost in costs if cost is not None),
        "prices_complete": None not in costs,
        "unanswered": {what: why for one in seen for what, why in one.inventory.unanswered.items()},
    }
    if swept is not None:
        found["swept"] = {
            "removed": [held.id for one in swept for held in one.removed],
            "gone": [held.id for one in swept for held in one.gone],
            "spared": {verdict.held.id: verdict.why for one in swept for verdict in one.spared},
            "left_behind": [leak for one in swept for leak in one.leaks],
        }
    return found


def _thing(verdict: Verdict) -> dict[str, Any]:
    held = verdict.held
    return {
        "kind": held.kind,
        "id": held.id,
        "name": held.name,
        "region": held.region,
        "run": held.run,
        "profile": held.profile,
        "state": held.state,
        "status": held.status,
        "created": held.created.isoformat() if held.created else None,
        "expires": held.tags.get("bake:expires"),
        "used_by": list(held.used_by),
        "type": held.type,
        "gib": held.size,
        "dollars_a_month": held.dollars,
        "outcome": verdict.outcome,
        "why": verdict.why,
        "by_hand": held.by_hand,
    }
