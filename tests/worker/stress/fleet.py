"""Real `flux-worker serve` processes, each in its own folder, that are killed and restarted.

The healthy ones are the workers of one instance, as on a machine with several GPUs. Some more may have a GPU
that breaks, each on an instance of its own: a worker that exits because of it is restarted, as systemd does.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.worker.conftest import free_ports

COMMAND = str(Path(sys.executable).parent / "flux-worker")
DONE = ("done", "announced again", "delivered from the outbox")
# How the lines begin that say so.
GIVEN_UP = ("returned to the queue", "stopped working")
FAILED, SET_ASIDE, REFUSED = "the job failed", "set aside", "job refused"
NOT_HERE, KEPT = "not drawn here", "not delivered"
ENDS = (*DONE, *GIVEN_UP, FAILED, SET_ASIDE, REFUSED, NOT_HERE, KEPT)
"""After such a line the worker does no more for the job than to return or delete its message."""
MOMENTS = ("drawing", "drawn", "both", "anything")
"""When a worker is killed: it draws, has drawn, draws while another job is delivered, or does anything."""
POISONED_WIDTH = 304  # an image of this width is drawn by no worker
LEFT_ALONE = (0, 78)  # the unit's Restart=on-failure and RestartPreventExitStatus=
RESTART_SECONDS = 5.0  # its RestartSec=
_GPU = Path(__file__).parent / "gpu"
Line = dict[str, Any]


@dataclass(frozen=True)
class GpuFault:
    """What a GPU suffers from; gpu/sitecustomize.py says what that means."""

    kind: str = ""
    course: str = "for ever"
    after: int = 0
    """So many images are drawn first, or, "at times", each so manieth is not drawn."""

    @classmethod
    def pick(cls, seed: int) -> GpuFault:
        """One of each kind and course."""
        dice = random.Random(f"{seed} sickness")
        kind = dice.choice(["cublas", "cudnn", "oom", "triton", "accelerator", "nan"])
        course = dice.choice(["for ever", "until restarted", "at times"])
        return cls(kind, course, dice.randint(3, 4) if course == "at times" else dice.randint(10, 30))

    def __str__(self) -> str:
        return f"{self.kind} {self.course} ({self.after})"

    @property
    def environment(self) -> dict[str, str]:
        """What a worker is started with to have such a GPU; one of no kind draws all but the poison."""
        known = {"PYTHONPATH": str(_GPU), "GPU": json.dumps(asdict(self))}
        return known | {"POISONED_WIDTH": str(POISONED_WIDTH)}


@dataclass
class Life:
    """One process, from its start to its end, and what it has logged so far."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float
    lines: list[Line] = field(default_factory=list)
    killed: float | None = None
    ended: float | None = None
    """When it was seen to have ended by itself."""
    _read: int = 0

    def follow(self) -> list[Line]:
        """The lines that are new; a line that the process has not finished yet waits."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            whole = log.read().rpartition(b"\n")
        self._read += len(whole[0]) + len(whole[1])
        # Of a process that breaks down, Python's traceback is no line of its log.
        new = [json.loads(line) for line in whole[0].splitlines() if line.startswith(b"{")]
        self.lines += new
        return new

    def ready(self) -> bool:
        """Whether the model is loaded."""
        return any(line["message"] == "model loaded" for line in self.lines)

    def last_words(self) -> dict[str, str]:
        """By job, the last line about it; the job of the last line comes last."""
        found: dict[str, str] = {}
        for line in self.lines:
            if job := line.get("job"):
                found.pop(job, None)
                found[job] = line["message"]
        return found

    def in_hand(self) -> list[str]:
        """The jobs that the worker has in hand where its log ends: none, one, or two.

        One that it draws, or does anything else to, and one before that is being delivered meanwhile.
        """
        *earlier, last = list(self.last_words().items())[-2:] or [("", DONE[0])]
        found = [job for job, message in earlier if not message.startswith(ENDS)]
        return found if last[1].startswith((*DONE, NOT_HERE)) else [*found, last[0]]

    def last_jobs(self) -> list[str]:
        """Of the last two jobs in the log those that are not done: of a failure it may not have told yet."""
        return [job for job, message in list(self.last_words().items())[-2:] if message not in DONE]

    def undelivered(self) -> Iterator[tuple[Line, frozenset[str]]]:
        """Each line, with the jobs that are drawn by then and neither delivered nor given up."""
        waiting: frozenset[str] = frozenset()
        for line in self.lines:
            yield line, waiting
            if line["message"] == "drawn":
                waiting |= {line["job"]}
            elif line["message"].startswith(ENDS):
                waiting -= {line.get("job")}


@dataclass
class Slot:
    """A machine's place in the fleet: its disk outlives the process, as systemd's StateDirectory does."""

    folder: Path
    environment: dict[str, str]
    gpu_fault: GpuFault | None = None
    place: dict[str, str] = field(default_factory=dict)
    """What this worker is told about its instance, where that has several."""
    lives: list[Life] = field(default_factory=list)

    def status(self) -> dict[str, Any]:
        """What the worker says at its own port, if it was given one."""
        if not self.place:
            return {}
        port = int(self.place["FLUX_METRICS_PORT"]) + int(self.place["FLUX_DEVICE"])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=60) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    @property
    def outbox(self) -> Path:
        """Where the worker keeps its results: one of several has a folder of its own."""
        return self.folder / "state" / self.place.get("FLUX_DEVICE", "") / "outbox"

    @property
    def life(self) -> Life:
        """The process that runs now, or ran last."""
        return self.lives[-1]

    @property
    def down(self) -> bool:
        """Whether nothing runs here any more, since it would not help to start again."""
        return self.life.process.poll() in LEFT_ALONE

    def start(self) -> None:
        """Start a worker on what the last one left."""
        log = self.folder / f"{len(self.lives)}.log"
        environment = self.environment | {"FLUX_STATE_DIR": str(self.folder / "state")}
        environment |= (self.gpu_fault or GpuFault()).environment | self.place
        with log.open("wb") as stderr:
            process = subprocess.Popen([COMMAND, "serve"], env=environment, stderr=stderr, cwd=self.folder)
        self.lives.append(Life(process, log, time.time()))

    def tend(self) -> None:
        """As systemd does it: what ended by itself is started again a moment later, or left alone."""
        code = self.life.process.poll()
        if code is None:
            return
        assert self.gpu_fault, f"{self.folder.name} ended by itself with {code}: {self.life.log.read_text()}"
        self.life.ended = self.life.ended or time.time()
        if code not in LEFT_ALONE and time.time() > self.life.ended + RESTART_SECONDS:
            self.life.follow()
            self.start()

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
        moments = itertools.cycle(dice.sample(MOMENTS, len(MOMENTS)))
        return [
            cls(
                after=int(share * (number + dice.uniform(0.3, 1.0))),
                slot=dice.randrange(slots),
                moment=next(moments),
                delay=dice.choice([0.0, dice.uniform(0, 0.05), dice.uniform(0, 0.5)]),
            )
            for number in range(kills)
        ]

    def has_come(self, life: Life, seen: int) -> bool:
        """Whether this moment has come, in the lines after the first `seen`."""
        lines = list(life.undelivered())[seen:]
        if self.moment == "both":
            return any(line["message"] == "drawing" and waiting for line, waiting in lines)
        return any(line["message"] == self.moment for line, _ in lines)


def _places(runtime: Path, workers: int) -> list[dict[str, str]]:
    """What each worker of one instance is told, by the unit `flux-worker@N` where there are several."""
    if workers < 2:
        return [{}]
    runtime.mkdir(parents=True)
    shared = {"RUNTIME_DIRECTORY": str(runtime), "FLUX_WORKERS": str(workers)}
    shared["FLUX_METRICS_PORT"] = str(free_ports(workers))
    return [shared | {"FLUX_DEVICE": str(number)} for number in range(workers)]


class Fleet:
    """Some slots and what is to be done to them; first the healthy ones, then those that are `sick`."""

    def __init__(
        self, folder: Path, environment: dict[str, str], *, size: int, faulty: Sequence[GpuFault] = ()
    ) -> None:
        places = _places(folder / "instance", size)
        self.slots = [
            Slot(folder / f"worker-{number}", environment, place=place) for number, place in enumerate(places)
        ]
        self.slots += [
            Slot(folder / f"sick-{number}", environment, gpu_fault) for number, gpu_fault in enumerate(faulty)
        ]
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
        """What each slot has logged since the last call. A healthy one that ended by itself is an error."""
        for slot in self.slots:
            slot.tend()
        return {number: slot.life.follow() for number, slot in enumerate(self.slots)}

    def done(self) -> int:
        """Jobs that were seen through so far."""
        return sum(line["message"] in DONE for life in self.lives() for line in life.lines)

    def outbox(self, *, healthy: bool = False) -> list[Path]:
        """What is kept on the disks of all slots, or of the healthy, because AWS has not taken it yet."""
        return [
            entry
            for slot in self.slots
            if not (healthy and slot.gpu_fault)
            for entry in slot.outbox.glob("*")
            if entry.name != "lock"
        ]

    def stop(self) -> list[int]:
        """Ask all to end; gives back the exit codes of the healthy ones."""
        for slot in self.slots:
            slot.life.process.send_signal(signal.SIGTERM)
        for slot in self.slots:
            slot.life.process.wait(600)
            slot.life.follow()
        return [slot.life.process.returncode for slot in self.slots if not slot.gpu_fault]
