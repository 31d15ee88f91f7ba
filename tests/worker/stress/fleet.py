"""Real `flux-worker serve` processes, each in a place of its own, that are killed and started again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).parent / "flux-worker")
DONE = ("done", "announced again", "delivered from the outbox")
Line = dict[str, Any]


@dataclass
class Life:
    """One process, from its start to its end, and what it has logged so far."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float
    lines: list[Line] = field(default_factory=list)
    killed: float | None = None
    _read: int = 0

    def follow(self) -> list[Line]:
        """The lines that are new; a line that the process has not finished yet waits."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            whole = log.read().rpartition(b"\n")
        self._read += len(whole[0]) + len(whole[1])
        new = [json.loads(line) for line in whole[0].splitlines()]
        self.lines += new
        return new

    def ready(self) -> bool:
        """Whether the model is loaded."""
        return any(line["message"] == "model loaded" for line in self.lines)


@dataclass
class Slot:
    """A machine's place in the fleet: its disk outlives the process, as systemd's StateDirectory does."""

    folder: Path
    environment: dict[str, str]
    lives: list[Life] = field(default_factory=list)

    @property
    def life(self) -> Life:
        """The process that runs now."""
        return self.lives[-1]

    def start(self) -> None:
        """Start a worker on what the last one left."""
        log = self.folder / f"{len(self.lives)}.log"
        environment = self.environment | {"FLUX_STATE_DIR": str(self.folder / "state")}
        with log.open("wb") as stderr:
            process = subprocess.Popen([COMMAND, "serve"], env=environment, stderr=stderr, cwd=self.folder)
        self.lives.append(Life(process, log, time.time()))

    def kill(self) -> None:
        """As the OOM killer or a machine that is taken away does it."""
        # Taken before: a death may take its time, and another worker begin meanwhile.
        self.life.killed = time.time()
        self.life.process.kill()
        self.life.process.wait()
        self.life.follow()


@dataclass(frozen=True)
class Kill:
    """When a worker is to die: `after` jobs are done; at once, or while it does something to the next job."""

    after: int
    slot: int
    moment: str
    delay: float

    @classmethod
    def plan(cls, seed: int, kills: int, jobs: int, slots: int) -> list[Kill]:
        """Spread over the run, so that each worker is started again in time to be of use."""
        dice = random.Random(f"{seed} kills")
        share = jobs / (kills + 1)
        return [
            cls(
                after=int(share * (number + dice.uniform(0.3, 1.0))),
                slot=dice.randrange(slots),
                moment=dice.choice(["drawing", "drawn", "anything"]),
                delay=dice.choice([0.0, dice.uniform(0, 0.05), dice.uniform(0, 0.5)]),
            )
            for number in range(kills)
        ]


class Fleet:
    """Some slots and what is to be done to them."""

    def __init__(self, folder: Path, environment: dict[str, str], *, size: int) -> None:
        self.slots = [Slot(folder / f"worker-{number}", environment) for number in range(size)]
        for slot in self.slots:
            slot.folder.mkdir(parents=True)

    def __enter__(self) -> Fleet:
        for slot in self.slots:
            slot.start()
        return self

    def __exit__(self, *_: object) -> None:
        for life in self.lives():
            life.process.kill()
            life.process.wait()

    def lives(self) -> Iterator[Life]:
        """Every process there ever was."""
        for slot in self.slots:
            yield from slot.lives

    def follow(self) -> dict[int, list[Line]]:
        """What each slot has logged since the last call. A worker that ended by itself is an error."""
        for number, slot in enumerate(self.slots):
            code = slot.life.process.poll()
            assert code is None, f"worker {number} ended by itself with {code}: {slot.life.log.read_text()}"
        return {number: slot.life.follow() for number, slot in enumerate(self.slots)}

    def done(self) -> int:
        """Jobs that were seen through so far."""
        return sum(line["message"] in DONE for life in self.lives() for line in life.lines)

    def outbox(self) -> list[Path]:
        """What is kept on the slots' disks because AWS has not taken it yet."""
        return [
            entry
            for slot in self.slots
            for entry in (slot.folder / "state" / "outbox").glob("*")
            if entry.name != "lock"
        ]

    def stop(self) -> list[int]:
        """Ask all to end; gives back their exit codes."""
        for slot in self.slots:
            slot.life.process.send_signal(signal.SIGTERM)
        codes = [slot.life.process.wait(600) for slot in self.slots]
        for slot in self.slots:
            slot.life.follow()
        return codes
