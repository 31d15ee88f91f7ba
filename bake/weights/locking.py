"""What `bake lock` does: ask the Hub, compare with what is locked, write what may be written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from bake import proposal
from bake.agreement import lockfile
from bake.agreement import texts as agreement_texts
from bake.agreement.lockfile import LockFile
from bake.errors import NotAgreed
from bake.proposal import Wish
from bake.weights import lock as locks
from bake.weights.lock import Lock

Say = Callable[[str], None]
Ask = Callable[[str], bool]


@dataclass(frozen=True)
class Request:
    """What was asked: to replace what differs, or to look at another `revision`.

    `commit` is what the new lock must be of, where nobody can be asked.
    """

    update: bool = False
    commit: str | None = None
    revision: str | None = None


def run(wish: Wish, request: Request, say: Say, ask: Ask | None) -> dict[str, Any]:
    """Lock the weights of a profile; returns what there is now, for machines.

    NotAgreed when what is locked differs and nobody said that it may be replaced.
    """
    before, held = lockfile.content(wish.lock), lockfile.read(wish.lock)
    with ExitStack() as stack:
        cloud = proposal.cloud_of(wish, stack, say)
        weights = proposal.weights_of(wish, cloud)
        now = locks.resolve(weights, cloud.hub if cloud else None, request.revision)
    if request.revision is not None:
        _look(wish, request.revision, weights.revision, held.weights, now, say)
        return _outcome(wish, held.weights, now, written=False)
    if _settled(wish, held.weights, now, say):
        return _outcome(wish, held.weights, now, written=False)
    if held.weights is not None and not locks.completes(held.weights, now):
        _refuse_or_ask(wish, request, held.weights, now, say, ask)
    _write(wish, held, now, before, say)
    return _outcome(wish, held.weights, now, written=True)


def _settled(wish: Wish, locked: Lock | None, now: Lock, say: Say) -> bool:
    if locked != now:
        return False
    say(f"{wish.lock} is as the Hub has it ({now}); nothing was written")
    return True


def _look(wish: Wish, name: str, pinned: str, locked: Lock | None, now: Lock, say: Say) -> None:
    say(f"{name} is {now.revision} now: {now}")
    if locked is not None and locks.differences(locked, now):
        say(f"\nother than locked in {wish.lock}:\n\n{locks.differences_table(locked, now)}\n")
    if now.revision != pinned:
        command = agreement_texts.lock_command(wish, "--update")
        say(f"to pin it, write it into the profile as weights.revision, then: {command}")
    say("nothing was written")


def _refuse_or_ask(wish: Wish, request: Request, locked: Lock, now: Lock, say: Say, ask: Ask | None) -> None:
    say(f"what the Hub has is not what is locked in {wish.lock}:\n\n{locks.differences_table(locked, now)}\n")
    update = agreement_texts.lock_command(wish, "--update")
    if not request.update:
        raise NotAgreed("the lock differs; nothing was written", hint=f"to replace it: {update}")
    if request.commit not in (None, now.revision):
        raise NotAgreed(f"--commit {request.commit}: the Hub has {now.revision}; nothing was written")
    if ask is None and request.commit is None:
        raise NotAgreed(
            "without a terminal the commit must be named; nothing was written",
            hint=f"{update} --commit {now.revision}",
        )
    if ask is not None and not ask(f"Lock {now}?"):
        raise NotAgreed("nothing was written")


def _write(wish: Wish, held: LockFile, now: Lock, before: bytes | None, say: Say) -> None:
    lockfile.write(replace(held, weights=now), before, agreement_texts.title(wish))
    say(f"locked in {wish.lock}: {now}")
    if not wish.rehearsal:
        say("commit it beside the profile")


def _outcome(wish: Wish, locked: Lock | None, now: Lock, *, written: bool) -> dict[str, Any]:
    differences = locks.differences(locked, now) if locked else []
    return {
        "lock": str(wish.lock),
        "written": written,
        **now.as_dict(),
        "differences": [one.as_dict() for one in differences],
    }
