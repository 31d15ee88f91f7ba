"""Run one cell: from a fork to a verdict."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bake.journal import Record

from ..bakes import ROOT
from . import judge
from .cells import FROM_THE_START, LATE, NOTICE, SIGNALS, Cell
from .cuts import NoMachine, cut, empty_disk, has_capacity_again
from .forks import Forks, folder
from .judge import Left
from .lane import PROFILES, Controller, Lane

PAST_EXPIRY = "+9d"
SPARED = "the call was not made: "
DISK = "64m"  # of the run directory, where it is to be full


@dataclass
class Outcome:
    """`verdict` is ok, red or not run; `how` says how the bake ended; `wrong` what is wrong with that."""

    step: str
    cut: str
    call: str
    verdict: str = "ok"
    how: str = ""
    wrong: list[str] = field(default_factory=list)
    message: str = ""
    seconds: float = 0.0


def run_all(cells: Sequence[Cell], lane: Lane, made: Forks) -> Iterator[Outcome]:
    """The verdicts on cells that one bake meets; on each alone where that bake was not well."""
    if len(cells) > 1:
        outcome = run(cells[0], lane, made, [cell.call for cell in cells])
        if all(one.startswith(SPARED) for one in outcome.wrong):
            spared = [cell for cell in cells if f"{SPARED}{cell.call}" in outcome.wrong]
            each = round(outcome.seconds / len(cells), 1)
            for cell in cells:
                if cell not in spared:
                    named = {"step": cell.step, "call": cell.call, "seconds": each}
                    yield replace(outcome, verdict="ok", wrong=[], **named)
            cells = spared
        else:
            print(
                f"{cells[0].cut} at {[cell.call for cell in cells]}: {outcome}", file=sys.stderr, flush=True
            )
    for cell in cells:
        yield run(cell, lane, made)


def run(cell: Cell, lane: Lane, made: Forks, calls: Sequence[str] = ()) -> Outcome:
    """The verdict on a cell; `calls` are those that fail, if it is not the cell's alone."""
    outcome, began = Outcome(cell.step, cell.cut, cell.call), time.monotonic()
    if why := cell.why_not:
        outcome.verdict, outcome.how = "does not apply", why
        return outcome
    case = _Case(cell, lane, made, outcome, calls or [cell.call] * bool(cell.call))
    try:
        case.run()
    except NoMachine:
        outcome.verdict, outcome.how = "does not apply", "the step has no machine that runs"
    except Exception:  # any: one cell's trouble must not end the others
        outcome.wrong.append(traceback.format_exc(limit=-3).replace(f"{ROOT}/", ""))
    finally:
        case.close()
    if outcome.wrong:
        outcome.verdict = "red"
        outcome.message += "".join(lane.failures())
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


class _Case:
    def __init__(self, cell: Cell, lane: Lane, made: Forks, outcome: Outcome, calls: Sequence[str]) -> None:
        self.cell, self.lane, self.made, self.outcome, self.calls = cell, lane, made, outcome, calls
        self.planted: dict[str, int] = {}
        self.mounted = False
        self.bake: Controller | None = None

    def run(self) -> None:
        lane, cell = self.lane, self.cell
        lane.start(folder(lane, cell.step, cell.market))
        if cell.cut == "full disk":
            self._small_disk()
        anew = ("--profile", PROFILES[cell.market], "--rehearse")
        self.bake = bake = lane.bake(*(anew if self.anew else ("resume", self.made.run)), held=cell.step)
        if not bake.until(cell.step):
            self.outcome.wrong.append(f"the step never began, exit code {bake.end()}: {bake.errors[-2000:]}")
            return
        bake.hold()
        self.planted = cut(cell, lane, bake, self.calls)
        self._follow(bake)
        empty_disk(lane.desk)
        self._resume()
        self._sweep()

    @property
    def anew(self) -> bool:
        return self.cell.step in FROM_THE_START

    def _small_disk(self) -> None:
        """Put the desk on a disk of its own that can be filled."""
        desk = self.lane.desk
        aside = desk.with_name("aside")
        desk.rename(aside)
        desk.mkdir()
        _host("mount", "-t", "tmpfs", "-o", f"size={DISK}", "chaos", str(desk))
        self.mounted = True
        _host("cp", "-a", f"{aside}/.", str(desk))
        _host("rm", "-rf", str(aside))

    def close(self) -> None:
        if self.bake is not None and self.bake.process.poll() is None:
            self.bake.process.kill()
            self.bake.process.wait()
        with suppress(Exception):
            self.lane.stop()
        if self.mounted:
            _host("umount", str(self.lane.desk))

    # --- how it ends -----------------------------------------------------------------------------

    def _follow(self, bake: Controller) -> None:
        """Wait for the end of the bake; one that outlives a failed call early is ended at the next step."""
        cell, outcome = self.cell, self.outcome
        went_on = False
        if cell.call and not self._ends_by_itself and cell.step not in LATE and bake.until(""):
            went_on = not self._spared() or not bake.until("")
            if went_on:
                bake.process.terminate()
        code = bake.end()
        outcome.how, outcome.message = f"exit code {code}", bake.errors[-3000:]
        outcome.wrong += [f"{SPARED}{call}" for call in self._spared()]
        self.lane.faults.clear()
        if cell.cut.startswith("kill -9"):
            return
        there = judge.left(self.lane)
        self._lost(there)
        if went_on:
            outcome.how = "went on"
            if code != 130:
                outcome.wrong.append(f"exit code {code} at a SIGTERM in the step after")
            outcome.wrong += [f"{what} {name} is left" for name, what in there.things.items()]
            return
        outcome.wrong += judge.of_message(cell, bake, code, there)
        self.kept = there

    kept: Left | None = None

    @property
    def _ends_by_itself(self) -> bool:
        """Whether the cut is to end the bake."""
        kinds = ("kill", *SIGNALS, "closed pipe", "refused", "expired", "builder terminated")
        return self.cell.cut.startswith(kinds)

    def _spared(self) -> list[str]:
        """The calls that no fault has struck."""
        struck = {one.number for one in self.lane.faults.listed() if one.struck}
        return [call for call, number in self.planted.items() if number not in struck]

    def _lost(self, there: Left) -> None:
        self.outcome.wrong += judge.of_images(self.lane, there)

    # --- what comes after ------------------------------------------------------------------------

    def _resume(self) -> None:
        """Go on with a run that has not ended, if this case is about that."""
        if self.cell.cut == "kill -9, not resumed":
            return
        for record in self._cut_runs():
            if self.cell.cut == NOTICE:
                has_capacity_again(self.lane)
            again = self.lane.bake("resume", record.id)
            code = again.end()
            self.outcome.how += f", resumed: exit code {code}"
            there = judge.left(self.lane)
            if code != 0 or "good" not in there.images.values() or there.things:
                left = ", ".join(there.things)
                self.outcome.wrong.append(
                    f"bake resume: {code}, left {left or 'nothing'}: {again.errors[-2000:]}"
                )
            self._lost(there)
            if note := [one["text"] for one in again.events if "baked anew" in one.get("text", "")]:
                self.outcome.how += ", baked anew"
                self.outcome.message += note[0]
            self.kept = there

    def _cut_runs(self) -> list[Record]:
        runs = self.lane.desk.glob(".bake/runs/*")
        found = [record for one in sorted(runs) if (record := Record.read(one)) is not None]
        return [record for record in found if record.ended is None]

    def _sweep(self) -> None:
        """Sweep once past the expiry: nothing is left, and no finished AMI is lost."""
        kept = self.kept or judge.left(self.lane)
        self.lane.control("POST", "/-/clock", PAST_EXPIRY)
        sweep = self.lane.bake("sweep", "--rehearse", "--yes")
        code = sweep.end(300)
        if code != 0:
            self.outcome.wrong.append(f"bake sweep: exit code {code}: {sweep.errors[-2000:]}")
        there = judge.left(self.lane)
        self.outcome.wrong += [
            f"{what} {name} is left after the sweep" for name, what in there.things.items()
        ]
        self._lost(kept)
        self._lost(there)
        deadline = time.monotonic() + 20  # terminated instances' disks
        while (left := judge.on_host(self.lane)) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.outcome.wrong += [f"on the host after the sweep: {one}" for one in left]


def _host(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """For JSON, without what changes from run to run in no interesting way."""
    found = asdict(outcome)
    found["message"] = re.sub(r"\s+", " ", found["message"])[:600]
    return found
