"""One bake that is saved at the beginning of each step, so that no case bakes from the beginning."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from bake.localcloud import save

from .cells import FROM_THE_START
from .held import EACH
from .lane import PROFILES, Lane

MADE = "forks.json"
FRESH = 3600.0  # seconds: a lease is of two hours, and a case takes minutes
# Steps that begin in a resumed run only if it goes on from an earlier one: the weights may be there already.
FROM = {**dict.fromkeys(FROM_THE_START, "plan"), "prefetch": "provision"}


@dataclass
class Forks:
    """The steps of a bake in their order; the AWS calls that each made; the run's id.

    `on_spot` has the calls that each step of a bake on spot made, in what the suite notes of both.
    """

    run: str = ""
    steps: list[str] = field(default_factory=list)
    calls: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    on_spot: dict[str, list[str]] = field(default_factory=dict)


def folder(lane: Lane, step: str, market: str = "on-demand") -> Path:
    """Where the cloud and the desk are as a step begins."""
    return lane.forks / market / FROM.get(step, step).replace(" ", "-")


def forks(lane: Lane, wanted: Collection[str] = (), market: str = "on-demand") -> Forks:
    """The forks of this lane, made by one bake unless they are there and its lease lasts a while.

    Only of the wanted steps, if any are named: the bake ends as the last of them begins.
    """
    made = lane.forks / market / MADE
    if not made.exists() or time.time() - made.stat().st_mtime > FRESH:
        shutil.rmtree(made.parent, ignore_errors=True)
        made.parent.mkdir(parents=True)
        made.write_text(json.dumps(vars(_bake(lane, set(wanted), market)), indent=2))
    return Forks(**json.loads(made.read_text()))


def _bake(lane: Lane, wanted: set[str], market: str) -> Forks:
    """Bake; at each step's beginning the controller stands still, and all is saved."""
    found = Forks()
    lane.start()
    bake = lane.bake("--profile", PROFILES[market], "--rehearse", held=EACH)
    known: set[str] = set()
    while bake.until(""):
        bake.hold()
        step = str(bake.events[-1]["step"])
        if found.steps:  # the calls since then were made in the step before
            known |= _noted(lane, found, known)
        if step in found.steps:
            bake.go_on()
            continue
        found.steps.append(step)
        place = folder(lane, step, market)
        if not place.exists() and (not wanted or place in {folder(lane, one, market) for one in wanted}):
            save(place)
            shutil.copytree(lane.desk, place / "desk")
            _forget_step(place / "desk", step)
        if wanted and wanted <= set(found.steps):
            bake.process.kill()
        bake.go_on()
    code = bake.end()
    _noted(lane, found, known)
    assert code == 0 or (wanted and wanted <= set(found.steps)), bake.errors
    found.run = next(str(event["id"]) for event in bake.events if event["event"] == "run")
    for event in bake.events:
        if event["event"] == "step_ended":
            found.seconds[event["step"]] = event["seconds"]
    lane.stop()
    return found


def _noted(lane: Lane, found: Forks, known: set[str]) -> set[str]:
    called = lane.control("GET", "/-/calls")
    fresh = [call for call in called if call not in known]
    found.calls.setdefault(found.steps[-1], []).extend(fresh)
    return set(called)


def _forget_step(desk: Path, step: str) -> None:
    """Take the step's beginning out of the journal: the fork is of the moment before."""
    for journal in desk.glob(".bake/runs/*/journal.jsonl"):
        lines = journal.read_text().splitlines(keepends=True)
        if lines and json.loads(lines[-1]).get("step") == step:
            journal.write_text("".join(lines[:-1]))
