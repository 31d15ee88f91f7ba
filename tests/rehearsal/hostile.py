"""Bake on hostile bases, and hold how that ends against what the catalogue says.

    sudo make rehearse-hostile                                   all bases, up to where the download begins
    sudo make rehearse-hostile HOSTILE="umask-077 full"          these alone
    sudo make rehearse-hostile HOSTILE="--full --system ubuntu"  whole bakes

A base that works is left where the download begins, as Ctrl-C leaves it; with --full it is baked to the
end. One that stops has to do so before anything is downloaded, for the reason that the catalogue names, and
within a minute of `connect`. The table goes to stdout; the exit code is 1 where a row is not so.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bake import localcloud, surroundings
from bake.columns import columns
from bake.errors import EXIT_INTERRUPTED
from bake.localcloud import LocalCloud
from bake.localcloud.images.hostile import HostileBase, find, hostile_bases

from .bakes import ROOT, start
from .instances import client

PROFILES = {"ubuntu": "g6e-ubuntu", "amazon-linux": "g6e-amazon-linux"}
DOWNLOADING = "provision"  # the step that begins when the download has just begun
SECONDS = 60.0  # from the start of `connect` to where a bake stops
PATIENCE = {False: 240.0, True: 1800.0}  # seconds for a row, and for a whole bake


@dataclass
class Row:
    """How a bake of a base ended: in `step`, `seconds` after the start of `connect` if it came so far."""

    base: HostileBase
    code: int = 0
    step: str = ""
    reason: str = ""
    seconds: float | None = None
    ended: bool = False  # left on purpose, where the download begins
    overdue: bool = False
    steps: list[str] = field(default_factory=list)

    @property
    def works(self) -> bool:
        return (self.ended or self.code == 0) and not self.overdue

    @property
    def problem(self) -> str:
        """What is not as the catalogue says; empty where all is."""
        wanted = self.base.hostile.stops
        if self.overdue:
            return "does not end"
        if self.ended and self.code != EXIT_INTERRUPTED:
            return "can't be interrupted"
        if self.works:
            return f"should stop: {wanted}" if wanted else ""
        if DOWNLOADING in self.steps:
            return f"fails late, in {self.step}"
        if not wanted:
            return "should work"
        if not re.search(wanted, self.reason, re.IGNORECASE):
            return f"should say why: {wanted}"
        return f"took more than {SECONDS:.0f} s" if (self.seconds or 0.0) > SECONDS else ""

    @property
    def cells(self) -> tuple[str, ...]:
        """For the table."""
        seconds = "" if self.seconds is None else f"{self.seconds:.1f} s"
        outcome = "works" if self.works else f"stops in {self.step} ({self.code})"
        reason = self.reason.splitlines()[0] if self.reason else ""
        verdict = f"NOT AS EXPECTED: {self.problem}" if self.problem else "as expected"
        return (self.base.hostile.name, self.base.system, outcome, seconds, verdict, reason[:100])


class Watcher:
    """Follows a bake's events, and ends it where its download begins."""

    def __init__(self, base: HostileBase, *, full: bool) -> None:
        self.row = Row(base)
        self._full = full
        self._connect: float | None = None

    def hear(self, event: dict[str, Any]) -> bool:
        """Take in an event; True where the bake has gone far enough."""
        row, kind, at = self.row, event["event"], event.get("at", 0.0)
        if kind == "step_started":
            row.steps.append(event["step"])
            if event["step"] == "connect":
                self._connect = at
            if event["step"] == DOWNLOADING and not self._full and not row.ended:
                row.ended, row.step = True, row.steps[-2]
                self._stop_clock(at)
                return True
        if kind == "step_ended" and not row.ended and (event["outcome"] == "failed" or self._full):
            row.step = event["step"]
            self._stop_clock(at)
        if kind == "failed" and not row.ended:
            row.reason = event["message"]
            if not row.step:  # between two steps, or before the first
                row.step = f"after {row.steps[-1]}" if row.steps else "plan"
                self._stop_clock(at)
        return False

    def limit(self, bake: subprocess.Popen[str]) -> threading.Timer:
        """Interrupt a bake that takes too long, until the timer is cancelled."""

        def end() -> None:
            self.row.overdue = True
            self.row.step = self.row.steps[-1] if self.row.steps else ""
            bake.send_signal(signal.SIGINT)

        clock = threading.Timer(PATIENCE[self._full], end)
        clock.daemon = True
        clock.start()
        return clock

    def _stop_clock(self, at: float) -> None:
        if self._connect is not None:
            self.row.seconds = at - self._connect


def rehearse(base: HostileBase, desk: Path, *, full: bool = False) -> Row:
    """Bake of a base on the local cloud that is up, in the folder `desk`."""
    profiles = desk / "profiles"
    shutil.copytree(ROOT / "profiles", profiles)
    (profiles / "hostile.yaml").write_text(profile_of(base), encoding="utf-8")
    watcher = Watcher(base, full=full)
    with (desk / "errors").open("w+") as errors:
        bake = start(desk, "hostile", profiles=profiles, errors=errors)
        assert bake.stdout is not None
        clock = watcher.limit(bake)
        with (desk / "events.jsonl").open("w") as kept:
            for line in bake.stdout:
                kept.write(line)
                if watcher.hear(json.loads(line)):
                    bake.send_signal(signal.SIGINT)
        watcher.row.code = bake.wait()
        clock.cancel()
        if not watcher.row.works and not watcher.row.reason:
            errors.seek(0)
            watcher.row.reason = errors.read().strip()
    return watcher.row


def forget(cloud: LocalCloud, desk: Path) -> None:
    """Remove the AMIs of a bake in the folder `desk`: a hundred of them would fill the disk."""
    events = map(json.loads, (desk / "events.jsonl").read_text().splitlines())
    runs = [event["id"] for event in events if event["event"] == "run"]
    ec2 = client(cloud, "ec2", "SPOT_AWS_REGION")
    mine = [{"Name": "tag:bake:run", "Values": runs}]
    for image in ec2.describe_images(Filters=mine)["Images"] if runs else ():
        ec2.deregister_image(ImageId=image["ImageId"], DeleteAssociatedSnapshots=True)


def profile_of(base: HostileBase) -> str:
    """A profile that bakes of it."""
    named = {"ami": None, "name": base.name, "owner": base.owner}
    return json.dumps(
        {"extends": PROFILES[base.system], "attest": False, "base": named, **base.hostile.profile}
    )


def table(rows: Iterable[Row]) -> str:
    """Base, system, outcome, seconds from connect to it, whether that is as expected, and the reason."""
    head = ("base", "system", "outcome", "after connect", "verdict", "reason")
    return "\n".join(columns([head, *(row.cells for row in rows)]))


def chosen(names: list[str], systems: list[str]) -> list[HostileBase]:
    """The bases that were asked for; UsageError for one that there is not."""
    for name in names:
        if all(name != base.hostile.name for base in hostile_bases()):
            find(name)
    return [
        base
        for base in hostile_bases()
        if base.system in systems and (not names or base.hostile.name in names)
    ]


def main() -> int:
    """Rehearse them one after the other, or `--jobs` at a time, on one local cloud."""
    parser = argparse.ArgumentParser(description="Bake on hostile bases, and print how each ends.")
    parser.add_argument(
        "names", nargs="*", metavar="BASE", help="as `bake local bases` lists them; all without"
    )
    parser.add_argument("--full", action="store_true", help="bake to the end")
    parser.add_argument("--system", choices=PROFILES, action="append", help="one of the two alone")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--keep", type=Path, help="a folder for what each bake leaves")
    asked = parser.parse_args()
    surroundings.set_aside()
    systems = asked.system or list(PROFILES)
    bases = chosen(asked.names, systems)

    def one(cloud: LocalCloud, base: HostileBase) -> Row:
        with tempfile.TemporaryDirectory(prefix="bake-hostile-") as scratch:
            desk = Path(scratch)
            if asked.keep:
                desk = asked.keep / f"{base.hostile.name}-{base.system}"
                shutil.rmtree(desk, ignore_errors=True)
                desk.mkdir(parents=True)
            row = rehearse(base, desk, full=asked.full)
            forget(cloud, desk)
        print("  ".join(cell for cell in row.cells if cell), file=sys.stderr, flush=True)
        return row

    with localcloud.running(lambda text: print(text, file=sys.stderr)) as cloud:
        for system in systems:
            localcloud.provide(system)
        with ThreadPoolExecutor(asked.jobs) as pool:
            try:
                rows = list(pool.map(partial(one, cloud), bases))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: the bakes have it, too
                raise
    print(table(rows))
    wrong = [row for row in rows if row.problem]
    print(f"\n{len(rows) - len(wrong)} of {len(rows)} as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
