"""Choose cells, run them on clouds side by side, note outcomes, and write the table."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..bakes import ROOT
from . import case, table
from .cells import SPOT, Cell, calls, chosen, steps, together
from .forks import Forks, forks
from .lane import Lane

COUNT = 150
SPARSE = 64 << 30  # bytes that the lanes may take; about 20 GB are taken


def main() -> None:
    """Run the suite, or one lane of it."""
    wanted = _words()
    if wanted.render:
        table.PAGE.write_text(table.page(), encoding="utf-8")
        return
    if wanted.lane is not None:
        _lane(wanted.lane)
        return
    with sharing_blocks(wanted.place):
        red = Suite(wanted).run()
    sys.exit(bool(red))


def _words() -> argparse.Namespace:
    words = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    words.add_argument(
        "--cells", default=str(COUNT), help="how many, `all`, or `red`: what was red or not run"
    )
    words.add_argument("--seed", default=f"{datetime.date.today():%Y-%m-%d}", help="decides the choice")
    words.add_argument("--only", default="", help="only cells with this in `step|call|cut`")
    words.add_argument("--lanes", type=int, default=3, help="clouds side by side")
    words.add_argument("--minutes", type=float, default=1e9, help="start no cell after so many")
    words.add_argument("--network", default="10.214.{}.0/24", help="the lanes' networks, {} from --first on")
    words.add_argument("--first", type=int, default=160)
    words.add_argument("--place", type=Path, default=Path("/var/tmp/bake-chaos"), help="for clouds and forks")
    words.add_argument("--outcomes", type=Path, default=table.OUTCOMES)
    words.add_argument("--render", action="store_true", help="only write docs/chaos.md")
    words.add_argument("--lane", type=Path, help=argparse.SUPPRESS)
    return words.parse_args()


@contextmanager
def sharing_blocks(place: Path) -> Iterator[None]:
    """Let copies of disks in `place` take no room: on another file system it becomes one in a file.

    The forks of three lanes would else take about 100 GB.
    """
    place.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", place], check=True, capture_output=True, text=True
    ).stdout
    if kind.strip() in ("btrfs", "xfs"):
        yield
        return
    image = place.with_name(f"{place.name}.btrfs")
    with image.open("wb") as file:
        file.truncate(SPARSE)
    try:
        subprocess.run(["mkfs.btrfs", "--quiet", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop,noatime", image, place], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        image.unlink()


def _lane(place: Path) -> None:
    """Serve one lane: cells come as JSON lines on stdin, outcomes go to stdout."""
    lane = Lane(place)
    try:
        made = forks(lane)
        made.on_spot = forks(lane, market=SPOT).calls
        print(json.dumps(vars(made)), flush=True)
        for line in sys.stdin:
            cells = [Cell(**one) for one in json.loads(line)]
            for outcome in case.run_all(cells, lane, forks(lane, market=cells[0].market)):
                print(json.dumps(case.as_dict(outcome)), flush=True)
    finally:
        lane.stop()


class Suite:
    """Lanes take cells from one queue."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.wanted = wanted
        self.began = time.monotonic()
        self.cells: queue.SimpleQueue[tuple[Cell, ...]] = queue.SimpleQueue()
        self.chosen = threading.Event()
        self.lock = threading.Lock()
        self.count = self.total = 0

    def run(self) -> int:
        """Run the cells; return how many are red by now, with those of earlier runs."""
        lanes = [threading.Thread(target=self._serve, args=(number,)) for number in range(self.wanted.lanes)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        if self.wanted.outcomes == table.OUTCOMES:
            table.PAGE.write_text(table.page(), encoding="utf-8")
        outcomes = [one for one in table.read(self.wanted.outcomes).values() if one["verdict"] == "red"]
        print(f"{self.count} cells in {(time.monotonic() - self.began) / 60:.0f} min; red: {len(outcomes)}")
        return len(outcomes)

    def _serve(self, number: int) -> None:
        """Start a lane's process, and hand it cells until there are none."""
        place = self.wanted.place / str(number)
        network = self.wanted.network.format(self.wanted.first + number)
        environment = {"BAKE_LOCAL_STATE": str(place / "cloud"), "BAKE_LOCAL_NETWORK": network}
        place.mkdir(parents=True, exist_ok=True)
        said = self.wanted.place.with_name(f"{self.wanted.place.name}-{number}.log")
        with said.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.rehearsal.chaos", "--lane", str(place)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdin and process.stdout
        line = process.stdout.readline()
        if not line:
            print(f"lane {number} has failed: {said}", file=sys.stderr)
            return
        self._choose(Forks(**json.loads(line)))
        while cells := self._next():
            process.stdin.write(json.dumps([dataclasses.asdict(cell) for cell in cells]) + "\n")
            process.stdin.flush()
            for cell in cells:
                if not (answer := process.stdout.readline()):
                    print(f"lane {number} has ended at {cell}: {said}", file=sys.stderr)
                    return
                self._note(json.loads(answer))
        process.stdin.close()
        process.wait()

    def _choose(self, made: Forks) -> None:
        """Fill the queue once the first lane knows the steps and calls of a bake."""
        with self.lock:
            if self.chosen.is_set():
                return
            if self.wanted.outcomes == table.OUTCOMES:
                facts = {"steps": made.steps, "calls": made.calls, "on_spot": made.on_spot}
                table.MADE.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            there = [*calls(made.calls, made.on_spot), *steps(made.steps)]
            found = self._picked(there)
            for cells in together(found):
                self.cells.put(cells)
            self.total = len(found)
            self.chosen.set()

    def _picked(self, there: list[Cell]) -> list[Cell]:
        wanted = self.wanted
        there = [one for one in there if wanted.only in f"{one.step}|{one.call}|{one.cut}"]
        if wanted.cells == "all":
            return chosen(there, len(there), wanted.seed)
        if wanted.cells == "red":
            known = table.read(wanted.outcomes)
            done = {one for one, outcome in known.items() if outcome["verdict"] not in ("red", "not run")}
            there = [one for one in there if table.key(one) not in done]
            return chosen(there, len(there), wanted.seed)
        return chosen(there, int(wanted.cells), wanted.seed)

    def _next(self) -> tuple[Cell, ...]:
        late = time.monotonic() - self.began > self.wanted.minutes * 60
        try:
            return () if late else self.cells.get_nowait()
        except queue.Empty:
            return ()

    def _note(self, outcome: dict[str, Any]) -> None:
        with self.lock, self.wanted.outcomes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")
            self.count += 1
            what = f"{outcome['call'] or outcome['step']} × {outcome['cut']}"
            shown = f"{what}: {outcome['verdict']}, {outcome['how']}"
            print(f"{self.count}/{self.total} {outcome['seconds']:6.1f} s  {shown}")
            for wrong in outcome["wrong"]:
                print(f"      {wrong}")
            sys.stdout.flush()
