"""Remove what expired runs left, by their tags, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from bake import creation
from bake.aws import Aws
from bake.lifecycle import inventory, machines
from bake.lifecycle.holding import Holding
from bake.lifecycle.inventory import Inventory, Question
from bake.lifecycle.verdict import Verdict, judge
from bake.retries import FRESH
from bake.undo import Undo

AT_ONCE = 16  # removals side by side
# Spot requests first, for one may launch again what ends; snapshots once no AMI uses them.
FIRST, LAST = ("spot request", "instance"), ("snapshot",)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Preview:
    """What there is, and what a sweep would do with it."""

    inventory: Inventory
    verdicts: tuple[Verdict, ...]

    @property
    def swept(self) -> list[Verdict]:
        """What a sweep would remove."""
        return [verdict for verdict in self.verdicts if verdict.outcome == "sweep"]


@dataclass
class Swept:
    """What became of it. `leaks` names what could not be removed, with the commands that remove it."""

    removed: list[Holding] = field(default_factory=list)
    gone: list[Holding] = field(default_factory=list)
    spared: list[Verdict] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)


def preview(aws: Aws, run: str | None = None, *, profile: str | None = None, prices: bool = True) -> Preview:
    """Take the inventory and judge it; `run` and `profile` narrow what is told."""
    found = inventory.take(aws, prices=prices)
    verdicts = judge(found.holdings, found.at)
    chosen = [one for one in verdicts if run in (None, one.held.run) and profile in (None, one.held.profile)]
    return Preview(found, tuple(chosen))


def sweep(
    aws: Aws, run: str | None = None, *, seen: Preview | None = None, say: Say = lambda text: None
) -> Swept:
    """Remove what the preview `seen` names, or what there is of `run`, or of all expired runs.

    Each thing is looked at again right before its removal: its lease may have been renewed, or something may
    use it by now. One that can't be removed keeps none of the others.
    """
    seen = seen or preview(aws, run, prices=False)
    work = _Work(aws, {one.held.id for one in seen.swept}, say)
    held = [one.held for one in seen.swept]
    for kind in FIRST:
        work.remove(one for one in held if one.kind == kind)
    work.remove(one for one in held if one.kind not in (*FIRST, *LAST))
    work.remove(_snapshots(aws, held))
    return work.done


def remove(aws: Aws, held: Holding) -> None:
    """Remove one thing, whatever its tags say, and wait for its end."""
    question = next(one for one in inventory.questions(aws) if one.matches(held))
    expect(question.aws, held)
    question.kind.remove(question.aws, held)


def expect(aws: Aws, held: Holding) -> None:
    """Take "not found" about a young thing that a list has shown for "not yet", for a while."""
    if held.created is None or (aws.now() - held.created).total_seconds() < FRESH:
        aws.fresh.add(held.id, seconds=creation.APPEARS_WITHIN)


def _snapshots(aws: Aws, held: list[Holding]) -> Iterator[Holding]:
    """The snapshots to remove, with those that an AMI did not tell yet when it was listed."""
    known = {one.id: one for one in held if one.kind in LAST}
    pending = {one.run for one in held if one.kind == "AMI" and one.status == "pending"}
    missing = pending - {one.run for one in known.values()}
    with aws.tally.waiting("snapshots of pending AMIs", creation.APPEARS_WITHIN) as wait:
        while missing:
            found = [one for one in machines.snapshots(aws) if one.run in pending]
            known |= {one.id: one for one in found}
            missing -= {one.run for one in found}
            if wait.seconds > creation.APPEARS_WITHIN:
                break
            if missing:
                wait.pause(1)
    yield from known.values()


class _Work:
    """Removes things side by side, and notes what became of each."""

    def __init__(self, aws: Aws, going: set[str], say: Say) -> None:
        self.done = Swept()
        self._say = say
        self._going = going
        self._living: dict[str, Verdict] = {}  # runs of which one thing was renewed meanwhile
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], Question] = {}
        for one in inventory.questions(aws):
            self._asked.setdefault((one.kind.name, one.region), one)

    def remove(self, held: Iterable[Holding]) -> None:
        """Remove these, some at a time; wait for the end of each."""
        waiting = list(held)
        while waiting:
            some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
            with Undo(self._say, self.done.leaks) as undo:
                for one in some:
                    undo.add(f"{one.kind} {one.id}", lambda one=one: self._one(one), by_hand=one.by_hand)  # type: ignore[misc]

    def _one(self, held: Holding) -> None:
        try:
            self._remove(held)
        except BaseException:
            with self._lock:
                self._going.discard(held.id)  # so that what it uses stays
            raise

    def _remove(self, held: Holding) -> None:
        question = self._asked[held.kind, held.region]
        now = question.kind.ask(question.aws, held.id)
        if not now:
            return self._note(self.done.gone, held)
        with self._lock:
            going = frozenset(self._going)
        (verdict,) = judge(now, question.aws.now(), going)
        with self._lock:
            if verdict.outcome == "living":
                self._living[held.run] = verdict
            if alive := self._living.get(held.run):
                verdict = replace(verdict, outcome=alive.outcome, why=alive.why)
            if verdict.held.run != held.run or verdict.outcome != "sweep":
                self._going.discard(held.id)
                self.done.spared.append(verdict)
                return None
        expect(question.aws, verdict.held)
        question.kind.remove(question.aws, verdict.held)
        return self._note(self.done.removed, held)

    def _note(self, found: list[Holding], held: Holding) -> None:
        with self._lock:
            found.append(held)
