"""The table of the suite: what is cut, and how. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# How an AWS call fails: kind of fault and its fields. What passes strikes a few times; what does not, always.
FAULTS: Mapping[str, Mapping[str, object]] = {
    "refused": {"kind": "refuse", "times": None},
    "throttled": {"kind": "throttle", "times": 3},
    "500": {"kind": "error", "times": 3},
    "lost after success": {"kind": "lost", "times": 1},
    "expired credentials": {"kind": "expired", "spreads": True},
}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# A bake outlives these. One bake therefore meets them at several calls of its step.
PASSING = ("throttled", "500", "lost after success")
SPOT, NOTICE = "spot", "spot notice"
CUTS = (
    *("kill -9", "kill -9, not resumed", *SIGNALS, "closed pipe", "full disk"),
    *("SSH cut", "builder rebooted", "builder terminated", NOTICE, "network gone for minutes"),
)
# What no step has begun for: the bake itself begins with these, not `bake resume`.
FROM_THE_START = ("local cloud", "plan", "wiring", "launch")
WITHOUT_MACHINE = ("local cloud", "plan", "wiring", "clean up", "publish")
WITHOUT_LOGIN = ("launch", "stop", "create image", "remove builder")
# Bakes that outlive a failed call are followed to their end from these steps on, and else to the next step.
LATE = ("stop", "create image", "remove builder", "boot check", "clean up", "publish")


@dataclass(frozen=True, order=True)
class Cell:
    """One case: at `step`, a `call` (`service Operation`) fails as `cut` says, or the bake itself is cut.

    `market` is how the bake's machines are paid: "on-demand" or "spot".
    """

    step: str
    cut: str
    call: str = ""
    market: str = "on-demand"

    @property
    def row(self) -> str:
        return self.call or self.step

    @property
    def why_not(self) -> str:
        """Why the case does not apply; empty if it does."""
        if self.call:
            return ""
        if self.step in WITHOUT_MACHINE and self.cut in ("SSH cut", NOTICE):
            return "there is no machine"
        if self.step in WITHOUT_MACHINE and self.cut.startswith("builder "):
            return "there is no machine"
        if self.step in WITHOUT_LOGIN and self.cut in ("SSH cut", "builder rebooted"):
            return "nobody is logged in"
        return ""


def calls(called: Mapping[str, Sequence[str]], on_spot: Mapping[str, Sequence[str]]) -> list[Cell]:
    """The first product: each call at the first step that makes it, failing in each way.

    Calls that only a bake `on_spot` makes fail in such a one. What removes the boot check's queue and the
    like is cut from the boot check on: a run that is resumed after that removes these before the step.
    """
    first: dict[str, tuple[str, str]] = {}
    for market, steps_ in (("on-demand", called), (SPOT, on_spot)):
        for step, made in steps_.items():
            for call in made:
                first.setdefault(call, ("boot check" if step == "clean up" else step, market))
    return [Cell(step, cut, call, market) for call, (step, market) in first.items() for cut in FAULTS]


def steps(named: Iterable[str]) -> list[Cell]:
    """The second product: each step, cut in each way."""
    return [Cell(step, cut, market=SPOT if cut == NOTICE else "on-demand") for step in named for cut in CUTS]


def together(cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
    """The cells by bake: what passes at calls of one step, or of all late steps, shares one, first."""
    shared: dict[tuple[str, str, str], list[Cell]] = {}
    single = []
    for cell in cells:
        if cell.call and cell.cut in PASSING:
            step = LATE[0] if cell.step in LATE else cell.step
            shared.setdefault((step, cell.cut, cell.market), []).append(cell)
        else:
            single.append((cell,))
    for cells_ in shared.values():  # the bake begins at the first of the steps
        cells_.sort(key=lambda cell: LATE.index(cell.step) if cell.step in LATE else 0)
    return [*map(tuple, shared.values()), *single]


def chosen(cells: Sequence[Cell], count: int, seed: str) -> list[Cell]:
    """A choice of at least `count` cells that apply: each row and each column has one; the seed decides."""
    dice = random.Random(seed)
    applying = [cell for cell in cells if not cell.why_not]
    dice.shuffle(applying)
    found: dict[Cell, None] = {}
    rows: set[tuple[bool, str]] = set()
    columns: set[str] = set()
    for cell in applying:
        if (bool(cell.call), cell.row) not in rows or cell.cut not in columns:
            found[cell] = None
            rows.add((bool(cell.call), cell.row))
            columns.add(cell.cut)
    for cell in applying:
        if len(found) >= count:
            break
        found[cell] = None
    return list(found)
