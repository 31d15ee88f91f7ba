"""Show how a plan stands to its agreement and its lock: for people, and for machines."""

from __future__ import annotations

from typing import Any

from bake.agreement import render
from bake.request import Proposal


def plan_text(proposal: Proposal) -> str:
    """The part of `bake plan` about the agreement."""
    request, differences = proposal.request, proposal.differences
    lines = [
        *_lock_lines(proposal),
        f"Agreement ({request.lock}):",
        render.state_table(proposal.guarded, differences),
        "",
    ]
    if not differences:
        lines.append("Everything is agreed.")
    elif request.rehearsal and proposal.agreement is None:
        lines.append(f"A rehearsal needs no agreement; to hold it to one: {render.command(request)}")
    else:
        count = "1 fact is" if len(differences) == 1 else f"{len(differences)} facts are"
        lines.append(f"{count} not agreed: a bake would stop here with exit code 3;")
        lines.append(render.how_to_agree(request, differences))
    return "\n".join(lines)


def _lock_lines(proposal: Proposal) -> list[str]:
    request, lock = proposal.request, proposal.lock
    if not proposal.unlocked:
        return [f"Weights' lock ({request.lock}):", f"  ✓ {lock}", ""]
    if request.rehearsal and lock is None:
        return ["Weights' lock: a rehearsal makes its own.", ""]
    command = render.lock_command(request)
    return [
        f"Weights' lock ({request.lock}):",
        f"  ✗ {proposal.unlocked}; a bake would stop here: {command}",
        "",
    ]


def as_dict(proposal: Proposal) -> dict[str, Any]:
    """Agreement and lock for machines; `agreed` and `locked` say whether a bake would go on."""
    return {"agreement": _agreement(proposal), "lock": _lock(proposal)}


def _lock(proposal: Proposal) -> dict[str, Any]:
    return {
        "file": str(proposal.request.lock),
        "locked": proposal.unlocked is None,
        "problem": proposal.unlocked,
        **(proposal.lock.as_dict() if proposal.lock else {}),
    }


def _agreement(proposal: Proposal) -> dict[str, Any]:
    differences = proposal.differences
    return {
        "file": str(proposal.request.lock),
        "exists": proposal.agreement is not None,
        "agreed": not differences,
        "differences": [one.as_dict() for one in differences],
    }
