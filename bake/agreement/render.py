"""How an agreement, and what is not as agreed, is shown: tables, and the commands that agree."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bake.agreement.facts import Difference, Guarded, shown
from bake.columns import table

if TYPE_CHECKING:
    from bake.request import BakeRequest, Proposal

HEADER = ("fact", "agreed", "now", "where it comes from")


def title(request: BakeRequest) -> str:
    """What a lock file is about, for the comment at its top."""
    if request.rehearsal:
        return f"rehearsals of profile {request.profile}: facts of the local cloud, nobody's infrastructure"
    return f"profile {request.profile}; it belongs into git, beside the profile"


def without_agreement(request: BakeRequest) -> str:
    """Why a rehearsal goes on although nobody agreed to anything."""
    return (
        f"no agreement asked for: a rehearsal touches nothing of yours. `{command(request)}` "
        "makes one for rehearsals, which is then held like the real one"
    )


def command(request: BakeRequest) -> str:
    """The command that agrees, with the options that this one was called with."""
    return f'{_called(request, "approve")} --because "…"'


def lock_command(request: BakeRequest, *options: str) -> str:
    """The command that locks the weights, likewise."""
    return _called(request, "lock", *options)


def _called(request: BakeRequest, command: str, *options: str) -> str:
    words = ["bake"]
    for option, value, usual in (
        ("--profiles", request.directory, "profiles"),
        ("--env-file", request.env_file, ".env.local"),
    ):
        words += [option, str(value)] if str(value) != usual else []
    words += [command, "--profile", request.profile, *(["--rehearse"] if request.rehearsal else []), *options]
    return shlex.join(words)


def how_to_agree(request: BakeRequest, differences: Sequence[Difference]) -> str:
    """The command for a terminal, which asks, and what a script adds to it."""
    names = " ".join(f"--fact {named(difference)}" for difference in differences)
    return f"if that is what you want:\n  {command(request)}\nwithout a terminal, add\n  {names}"


def named(difference: Difference) -> str:
    """A difference as `--fact` takes it: with its value where that is a short one."""
    value = difference.now
    if isinstance(value, list) or value is None or difference.name == "worker.lock":
        return difference.name
    return shlex.quote(f"{difference.name}={value}")


def how_to_lock(request: BakeRequest) -> str:
    """The command that locks the weights, and what it does."""
    return f"size and hash of every file, from the Hub:\n  {lock_command(request)}"


def refusal(request: BakeRequest, guarded: Guarded, differences: Sequence[Difference], *, new: bool) -> str:
    """What is not as agreed; with `new`, nothing is yet."""
    if new:
        head = f"nobody agreed yet to what profile {request.profile} uses; it would stand in {request.lock}"
        return f"{head}\n\n{_facts(guarded)}"
    head = f"profile {request.profile} is not what was agreed in {request.lock}"
    return f"{head}\n\n{differences_table(differences)}"


def _facts(guarded: Guarded) -> str:
    rows = [(name, shown(value, name), origin) for name, value, origin in guarded.rows()]
    return table(("fact", "now", "where it comes from"), rows)


def differences_table(differences: Sequence[Difference]) -> str:
    """Fact, agreed, now, where it comes from."""
    rows = [
        (
            one.name,
            "nothing yet" if one.new else shown(one.agreed, one.name),
            shown(one.now, one.name),
            one.origin,
        )
        for one in differences
    ]
    return table(HEADER, rows)


def state_table(guarded: Guarded, differences: Sequence[Difference]) -> str:
    """Every fact, each with whether it is agreed."""
    different = {one.name: one for one in differences}
    rows = []
    for name, value, origin in guarded.rows():
        one = different.get(name)
        mark = "✓" if one is None else "?" if one.new else "✗"
        agreed = "agreed" if one is None else "not yet" if one.new else shown(one.agreed, name)
        rows.append((f"{mark} {name}", agreed, shown(value, name), origin))
    return table(("  fact", *HEADER[1:]), rows)


def plan_text(proposal: Proposal) -> str:
    """The part of `bake plan` about the agreement."""
    request, differences = proposal.request, proposal.differences
    lines = [
        *_lock_lines(proposal),
        f"Agreement ({request.lock}):",
        state_table(proposal.guarded, differences),
        "",
    ]
    if not differences:
        lines.append("All of it is agreed.")
    elif request.rehearsal and proposal.agreement is None:
        lines.append(f"A rehearsal needs no agreement; to hold it to one: {command(request)}")
    else:
        count = "1 fact is" if len(differences) == 1 else f"{len(differences)} facts are"
        lines.append(f"{count} not agreed: a bake would stop here with exit code 3;")
        lines.append(how_to_agree(request, differences))
    return "\n".join(lines)


def _lock_lines(proposal: Proposal) -> list[str]:
    request, lock = proposal.request, proposal.lock
    if not proposal.unlocked:
        return [f"Weights' lock ({request.lock}):", f"  ✓ {lock}", ""]
    if request.rehearsal and lock is None:
        return ["Weights' lock: a rehearsal makes its own.", ""]
    command = lock_command(request)
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
