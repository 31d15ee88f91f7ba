"""Show what is pruned, what is kept and why: as text for people, as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bake.columns import table
from bake.creation import stamp
from bake.lifecycle.holding import Holding, shown
from bake.lifecycle.prune import Preview, Pruned
from bake.lifecycle.retention import COPY_TAG
from bake.lifecycle.verdict import Verdict
from bake.profile.yaml_source import printable

HEADER = ("AMI", "region", "profile", "state", "created", "GiB", "$ a month")
WIDEST = 60  # of a name, which may be anything
LONGEST = 400  # of a reason


def as_text(seen: Preview, pruned: Pruned | None) -> str:
    """What goes and why, what that frees, and what stays and why."""
    kept = [one for one in seen.verdicts if one.outcome == "keep"]
    parts = [_going(seen.going), _table("kept:", kept), *seen.proof.notes]
    if pruned is not None:
        parts.append("\n".join(_done(pruned)))
    elif seen.going:
        parts.append("nothing was changed: add --yes to remove them with their snapshots")
    return "\n\n".join(part for part in parts if part)


def _going(going: Sequence[Verdict]) -> str:
    if not going:
        return "nothing is to be pruned"
    return f"{_table('to be pruned:', going)}\n{_sum(one.held for one in going)}"


def _table(title: str, verdicts: Sequence[Verdict]) -> str:
    """A row for each, and below it the reason, which may be long."""
    if not verdicts:
        return ""
    head, *rows = table(HEADER, [_row(one.held) for one in verdicts]).splitlines()
    told = (f"{row}\n    {printable(one.why, LONGEST)}" for row, one in zip(rows, verdicts, strict=True))
    return "\n".join([title, head, *told])


def _row(held: Holding) -> tuple[str, ...]:
    state = held.state or "good"
    about = f"{state}, {held.status}" if held.status != "available" else state
    about += ", a copy" if COPY_TAG in held.tags else ""
    since = shown(held.created) if held.created else "?"
    size = "?" if held.size is None else str(held.size)
    dollars = "?" if held.dollars is None else f"{held.dollars:,.2f}"
    words = (held.id, held.region, held.profile, about, since, size, dollars)
    return tuple(printable(word, WIDEST) for word in words)


def _sum(found: Iterable[Holding]) -> str:
    listed = list(found)
    known = sum(held.dollars for held in listed if held.dollars is not None)
    unknown = sum(held.dollars is None for held in listed)
    least = f", and {unknown} whose price is not known" if unknown else ""
    return f"{len(listed)} in all: at most {known:,.2f} dollars a month{least}"


def _done(pruned: Pruned) -> list[str]:
    gone = len(pruned.gone)
    lines = [f"{len(pruned.removed)} removed" + (f", {gone} gone already" if gone else "")]
    lines += [
        f"stays: {one.held.id} in {one.held.region}: {printable(one.why, LONGEST)}" for one in pruned.spared
    ]
    return lines


def as_dict(seen: Preview, pruned: Pruned | None) -> dict[str, Any]:
    """The same for programs. `outcome` is what the preview says; what was done is in `pruned`, if it was."""
    costs = [one.held.dollars for one in seen.going]
    found: dict[str, Any] = {
        "at": stamp(seen.inventory.at),
        "images": [_image(one, seen) for one in seen.verdicts],
        "dollars_a_month": sum(cost for cost in costs if cost is not None),
        "prices_complete": None not in costs,
        "unanswered": dict(seen.unanswered),
        "notes": list(seen.proof.notes),
    }
    if pruned is not None:
        found["pruned"] = {
            "removed": [held.id for held in pruned.removed],
            "gone": [held.id for held in pruned.gone],
            "spared": {one.held.id: one.why for one in pruned.spared},
            "left_behind": list(pruned.leaks),
            "unanswered": dict(pruned.unanswered),
        }
    return found


def _image(verdict: Verdict, seen: Preview) -> Mapping[str, Any]:
    held = verdict.held
    references = seen.proof.references.get(held.id, ())
    return {
        "id": held.id,
        "name": held.name,
        "region": held.region,
        "run": held.run,
        "profile": held.profile,
        "state": held.state,
        "status": held.status,
        "created": held.created.isoformat() if held.created else None,
        "copy_of": held.tags.get(COPY_TAG),
        "snapshots": list(held.snapshots),
        "gib": held.size,
        "dollars_a_month": held.dollars,
        "references": [{"kind": one.kind, "id": one.id, "detail": one.detail} for one in references],
        "shared_with": list(seen.proof.shares.get(held.id, ())),
        "outcome": verdict.outcome,
        "why": verdict.why,
        "by_hand": held.by_hand,
    }
