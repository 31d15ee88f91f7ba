"""Run `bake lock`: ask the Hub, compare its files with the lock, and write what may be written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from bake.agreement import lockfile
from bake.agreement import render as agreement_render
from bake.agreement.lockfile import LockFile
from bake.errors import NotAgreed
from bake.request import BakeRequest, local_cloud, weights_of
from bake.weights import lock as locks
from bake.weights.lock import Lock

Say = Callable[[str], None]
Ask = Callable[[str], bool]


@dataclass(frozen=True)
class LockOptions:
    """What was asked: to replace what differs, or to look at another `revision`.

    `commit` is what the new lock must be of, where nobody can be asked.
    """

    update: bool = False
    commit: str | None = None
    revision: str | None = None


def run(request: BakeRequest, options: LockOptions, say: Say, ask: Ask | None) -> dict[str, Any]:
    """Lock the weights of a profile; returns what there is now, for machines.

    NotAgreed when what is locked differs and nobody said that it may be replaced.
    """
    before, held = lockfile.content(request.lock), lockfile.read(request.lock)
    with ExitStack() as stack:
        cloud = local_cloud(request, stack, say)
        weights = weights_of(request, cloud)
        now = locks.resolve(weights, cloud.hub if cloud else None, options.revision)
    if options.revision is not None:
        _look(request, options.revision, weights.revision, held.weights, now, say)
        return _outcome(request, held.weights, now, written=False)
    if _settled(request, held.weights, now, say):
        return _outcome(request, held.weights, now, written=False)
    if held.weights is not None and not locks.completes(held.weights, now):
        _refuse_or_ask(request, options, held.weights, now, say, ask)
    _write(request, held, now, before, say)
    return _outcome(request, held.weights, now, written=True)


def _settled(request: BakeRequest, locked: Lock | None, now: Lock, say: Say) -> bool:
    if locked != now:
        return False
    say(f"{request.lock} matches the Hub ({now}); nothing was written")
    return True


def _look(request: BakeRequest, name: str, pinned: str, locked: Lock | None, now: Lock, say: Say) -> None:
    say(f"{name} is {now.revision} now: {now}")
    if locked is not None and locks.differences(locked, now):
        say(f"\nthis differs from {request.lock}:\n\n{locks.differences_table(locked, now)}\n")
    if now.revision != pinned:
        command = agreement_render.lock_command(request, "--update")
        say(f"to pin it, write it into the profile as weights.revision, then: {command}")
    say("nothing was written")


def _refuse_or_ask(
    request: BakeRequest, options: LockOptions, locked: Lock, now: Lock, say: Say, ask: Ask | None
) -> None:
    say(
        f"the Hub's files differ from those locked in {request.lock}:\n\n"
        f"{locks.differences_table(locked, now)}\n"
    )
    update = agreement_render.lock_command(request, "--update")
    if not options.update:
        raise NotAgreed("the lock differs; nothing was written", hint=f"to replace it: {update}")
    if options.commit not in (None, now.revision):
        raise NotAgreed(f"--commit {options.commit}: the Hub has {now.revision}; nothing was written")
    if ask is None and options.commit is None:
        raise NotAgreed(
            "without a terminal, name the commit; nothing was written",
            hint=f"{update} --commit {now.revision}",
        )
    if ask is not None and not ask(f"Lock {now}?"):
        raise NotAgreed("nothing was written")


def _write(request: BakeRequest, held: LockFile, now: Lock, before: bytes | None, say: Say) -> None:
    lockfile.write(replace(held, weights=now), before, agreement_render.title(request))
    say(f"locked in {request.lock}: {now}")
    if not request.rehearsal:
        say("commit it beside the profile")


def _outcome(request: BakeRequest, locked: Lock | None, now: Lock, *, written: bool) -> dict[str, Any]:
    differences = locks.differences(locked, now) if locked else []
    return {
        "lock": str(request.lock),
        "written": written,
        **now.as_dict(),
        "differences": [one.as_dict() for one in differences],
    }
