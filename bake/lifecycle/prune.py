"""Prune AMIs: find those that a rule lets go, ask what refers to them, and remove the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bake.account.prices import snapshot_month
from bake.aws import Aws
from bake.background import start
from bake.image import remove
from bake.lifecycle import inventory, machines
from bake.lifecycle.asking import ask_proof
from bake.lifecycle.holding import Holding
from bake.lifecycle.inventory import Inventory, Question
from bake.lifecycle.proof import Proof
from bake.lifecycle.references import QUESTIONS, Asks
from bake.lifecycle.retention import COPY_TAG, Key, Rule, beyond, judge, key_of
from bake.lifecycle.sweep import AT_ONCE, Swept, expect
from bake.lifecycle.verdict import Verdict
from bake.undo import Undo

Say = Callable[[str], None]


@dataclass(frozen=True)
class Scope:
    """Where to look, and what rules hold: clients by region, rules by profile.

    `files` are folders and files that may name AMIs. `only` narrows what may go to these ids, and `profile`
    what is told to a profile's images. `otherwise` is the rule of profiles that have none (None: nothing of
    theirs goes), `questions` what is asked.
    """

    clouds: Mapping[str, Aws]
    rules: Mapping[str, Rule]
    files: Sequence[Path] = ()
    only: frozenset[str] | None = None
    profile: str | None = None
    otherwise: Rule | None = None
    questions: Mapping[str, Asks] = field(default_factory=lambda: QUESTIONS)

    def rules_for(self, held: Iterable[Holding]) -> Mapping[str, Rule]:
        """The rule of each profile among these."""
        found = {one.profile: self.rules.get(one.profile, self.otherwise) for one in held}
        return {name: rule for name, rule in found.items() if rule is not None}

    def among(self, held: Iterable[Holding]) -> list[Holding]:
        """Those of these that may go."""
        listed = list(held)
        if self.only is None:
            return listed
        chosen = {key_of(one) for one in listed if one.id in self.only}
        return [one for one in listed if key_of(one) in chosen]


@dataclass(frozen=True)
class Preview:
    """What there is, what refers to it, and what would become of it."""

    inventory: Inventory
    proof: Proof
    verdicts: tuple[Verdict, ...]

    @property
    def going(self) -> list[Verdict]:
        """What would be removed."""
        return [one for one in self.verdicts if one.outcome == "prune"]

    @property
    def unanswered(self) -> Mapping[str, str]:
        """All questions without an answer, and why."""
        return {**self.inventory.unanswered, **self.proof.unanswered}


def preview(scope: Scope, *, prices: bool = True) -> Preview:
    """Take the inventory, ask what refers to the AMIs that the rules let go, and judge.

    Where the rules let none go, nothing more is asked.
    """
    found = _look(scope)
    held = [one for one in found.holdings if scope.profile in (None, one.profile)]
    going = scope.among(beyond(held, scope.rules_for(held)))
    proof = ask_proof(scope.clouds, going, scope.files, scope.questions)
    verdicts = _judged(scope, held, proof, {one.id for one in going}, found)
    return Preview(found, proof, tuple(_priced(scope.clouds, verdicts) if prices else verdicts))


def _look(scope: Scope) -> Inventory:
    asked = [Question(machines.AMIS, aws) for aws in scope.clouds.values()]
    return inventory.take(next(iter(scope.clouds.values())), prices=False, only=asked)


def _judged(
    scope: Scope, held: Sequence[Holding], proof: Proof, asked: Collection[str], found: Inventory
) -> list[Verdict]:
    """The verdicts; an AMI goes only if what refers to it was asked for."""
    missing = [f"{what} could not be looked at: {why}" for what, why in found.unanswered.items()]
    verdicts = judge(held, scope.rules_for(held), proof, missing)
    return [
        replace(one, outcome="keep", why="it is not to be removed now")
        if one.outcome == "prune" and one.held.id not in asked
        else one
        for one in verdicts
    ]


def _priced(clouds: Mapping[str, Aws], verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts with the dollars of each AMI's snapshots in a month: at most, for blocks may be shared."""
    listed = list(verdicts)
    regions = {one.held.region for one in listed}
    asked = {region: start(lambda region=region: snapshot_month(clouds[region])) for region in regions}  # type: ignore[misc]
    prices = {region: answer.result() for region, answer in asked.items()}
    return [replace(one, held=_with_dollars(one.held, prices[one.held.region])) for one in listed]


def _with_dollars(held: Holding, price: object) -> Holding:
    known = isinstance(price, float | int) and held.size is not None
    return replace(held, dollars=price * held.size if known else None)  # type: ignore[operator]


@dataclass
class Pruned(Swept):
    """What became of it. `unanswered` are questions that were answered before, and now were not."""

    unanswered: dict[str, str] = field(default_factory=dict)


def prune(scope: Scope, seen: Preview, say: Say = lambda text: None) -> Pruned:
    """Remove what the preview `seen` lets go, some at a time, copies before what they are copies of.

    Before each of these everything is asked again: what is judged to stay by now stays. Right before its
    removal each AMI is looked at once more. One that can't be removed keeps none of the others.
    """
    done = Pruned()
    going = [one.held for one in seen.going]
    images = list(dict.fromkeys(key_of(one) for one in going))
    for first in range(0, len(images), AT_ONCE):
        some = set(images[first : first + AT_ONCE])
        _Batch(scope, [one for one in going if key_of(one) in some], done, say).remove()
    return done


class _Batch:
    """Some AMIs that are removed side by side."""

    def __init__(self, scope: Scope, held: list[Holding], done: Pruned, say: Say) -> None:
        self._scope, self._held, self._done, self._say = scope, held, done, say
        self._lock = threading.Lock()
        self._staying: set[Key] = set()  # a copy of these stays: so does what it is a copy of

    def remove(self) -> None:
        """Look again, then remove what still goes."""
        going = self._again()
        self._now([one for one in going if COPY_TAG in one.tags])
        self._now([one for one in going if COPY_TAG not in one.tags])

    def _again(self) -> list[Holding]:
        ids = frozenset(one.id for one in self._held)
        now = preview(replace(self._scope, only=ids), prices=False)
        self._done.unanswered |= now.unanswered
        verdicts = {one.held.id: one for one in now.verdicts}
        for held in self._held:
            if held.id not in verdicts:
                self._done.gone.append(held)
            elif verdicts[held.id].outcome != "prune":
                self._done.spared.append(verdicts[held.id])
        return [
            verdicts[one.id].held for one in self._held if one.id in verdicts and one.id in _ids(now.going)
        ]

    def _now(self, held: Iterable[Holding]) -> None:
        with Undo(self._say, self._done.leaks) as undo:
            for one in held:
                undo.add(f"AMI {one.id}", lambda one=one: self._one(one), by_hand=one.by_hand)  # type: ignore[misc]

    def _one(self, held: Holding) -> None:
        try:
            self._remove(held)
        except BaseException:
            with self._lock:
                self._staying.add(key_of(held))
            raise

    def _remove(self, held: Holding) -> None:
        aws = self._scope.clouds[held.region]
        now = machines.AMIS.ask(aws, held.id)
        if not now:
            return self._note(self._done.gone, held)
        if why := self._changed(held, now[0]):
            with self._lock:
                self._staying.add(key_of(held))
                self._done.spared.append(Verdict(now[0], "keep", why))
            return None
        expect(aws, now[0])
        remove(aws, held.id)
        return self._note(self._done.removed, held)

    def _changed(self, held: Holding, now: Holding) -> str:
        """Why an AMI stays that went a moment ago; empty if nothing changed."""
        if now.used_by:
            return "; ".join(f"instance {user} runs from it" for user in now.used_by)
        if (now.tags, now.status, now.protection) != (held.tags, held.status, held.protection):
            return "somebody has changed its tags or its state meanwhile"
        with self._lock:
            copied = key_of(held) in self._staying
        return "a copy of it in another region stays" if copied else ""

    def _note(self, found: list[Holding], held: Holding) -> None:
        with self._lock:
            found.append(held)


def _ids(verdicts: Iterable[Verdict]) -> set[str]:
    return {one.held.id for one in verdicts}
