"""The stages of a start: when each began and ended, what it read, and what it says of itself.

`bake boot-check` makes the cold-start report of them. Times are seconds of CLOCK_BOOTTIME, as systemd's
`…TimestampMonotonic` and the warm-up's report are, so that all of them lie on one line.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from .startup import Usage

log = logging.getLogger(__name__)

FORMAT = 1
Name = Literal["imports", "load", "first_draw"]


class Stage:
    """One stage while it runs."""

    def __init__(self, name: Name, began: float, bytes_before: int) -> None:
        self.name = name
        self.began = began
        self.ended: float | None = None
        self.bytes: int | None = None
        self._bytes_before = bytes_before
        self._facts: dict[str, Any] = {}

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Add what JSON can hold, such as the facts of the load's StreamReport; a later value counts."""
        self._facts |= facts

    def end(self, now: float, bytes_read: int) -> None:
        """The stage is over."""
        self.ended, self.bytes = now, bytes_read - self._bytes_before

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs, and if it failed."""
        return None if self.ended is None else round(self.ended - self.began, 3)

    def as_json(self) -> dict[str, Any]:
        """Seconds since boot, and bytes that the process read from disks meanwhile, without cached ones."""
        times = {"began": round(self.began, 3), "ended": self.ended and round(self.ended, 3)}
        facts = {"facts": dict(self._facts)} if self._facts else {}
        return {"name": self.name, **times, "seconds": self.seconds, "bytes": self.bytes, **facts}


class Stages:
    """All stages of this process's start, kept in a file if there is one. Stages may overlap."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._stages: list[Stage] = []
        self._lock = threading.Lock()
        self._process_started = process_started()

    @classmethod
    def of_worker(cls, environment: Mapping[str, str], number: int, workers: int) -> Stages:
        """Keep them in `start.json` of RUNTIME_DIRECTORY, which systemd sets; without it nowhere.

        Of several workers, which share that folder, each has `start-N.json`.
        """
        folder = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]  # the first of several
        name = f"start-{number}.json" if workers > 1 else "start.json"
        return cls(Path(folder) / name if folder else None)

    @contextmanager
    def stage(self, name: Name, *, since_start: bool = False) -> Iterator[Stage]:
        """Run the block as a stage; one that raises never ends, which the file shows as null.

        `since_start`: it began when the process did, with the interpreter.
        """
        began, before = (self._process_started, 0) if since_start else (_now(), Usage.now().read)
        stage = Stage(name, began, before)
        with self._lock:
            self._stages.append(stage)
        self._keep()
        yield stage
        stage.end(_now(), Usage.now().read)
        self._keep()

    def facts(self) -> dict[str, Any]:
        """For a log line: `stages`, as the file has them."""
        with self._lock:
            return {"stages": [stage.as_json() for stage in self._stages]}

    def _keep(self) -> None:
        """Replace the file; a folder that cannot be written to must not prevent the start."""
        if self._file is None:
            return
        content: dict[str, Any] = {
            "format": FORMAT,
            "pid": os.getpid(),
            "process_started": self._process_started,
        }
        partial = self._file.with_name(f".{self._file.name}.partial")
        with self._lock:
            content |= {"stages": [stage.as_json() for stage in self._stages]}
            try:
                partial.write_text(json.dumps(content) + "\n")
                partial.replace(self._file)
            except OSError as error:
                log.warning("cannot write %s: %s", self._file, error)


def process_started() -> float:
    """When the kernel started this process, in seconds since boot (proc(5), field 22); else now."""
    with suppress(OSError, ValueError, IndexError):
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return _now()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
