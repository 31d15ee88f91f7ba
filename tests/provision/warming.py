"""Run the warm-up as flux-warm.service does, on files of a test."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parents[2] / "provision/rootfs/usr/lib/flux-worker"
# Sets what the program takes from its machine, and runs it.
CHANGED = """
import sys
sys.path.insert(0, sys.argv[1])
import surroundings, warm
for name, value in eval(sys.argv[2]).items():
    setattr(surroundings if hasattr(surroundings, name) else warm, name, value)
sys.argv[1:] = sys.argv[3:]
warm.main()
"""


def whole(file: Path) -> list[Any]:
    """A file as an entry of a trace."""
    found = file.stat()
    return [str(file), 0, 0, found.st_size, found.st_mtime_ns]


def part(file: Path, offset: int, length: int) -> list[Any]:
    return [str(file), offset, length, *whole(file)[3:]]


def trace(**stages: Iterable[Any]) -> dict[str, Any]:
    listed = [{"name": name, "ranges": list(ranges)} for name, ranges in stages.items()]
    return {"format": 1, "image": "a plan", "recorded": "start on cpu", "stages": listed}


def cached(file: Path) -> int:
    """Pages of a file that are in the page cache (mincore(2))."""
    libc, size, there = (
        ctypes.CDLL(None, use_errno=True),
        file.stat().st_size,
        (ctypes.c_ubyte * pages(file))(),
    )
    libc.mmap.restype, length = ctypes.c_void_p, ctypes.c_size_t(size)
    with file.open("rb") as opened:
        # Python's own mapping does not tell where it is, unless it can be written to.
        place = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, opened.fileno(), ctypes.c_long(0))
    done = libc.mincore(ctypes.c_void_p(place), length, there)
    libc.munmap(ctypes.c_void_p(place), length)
    assert done == 0, os.strerror(ctypes.get_errno())
    return sum(page & 1 for page in there)


def pages(file: Path) -> int:
    return -(-file.stat().st_size // mmap.PAGESIZE)


@dataclass(frozen=True)
class Warmed:
    """What a warm-up that has ended left."""

    code: int
    said: str
    report: dict[str, Any]
    peak: int
    """Bytes of memory that it had at most."""


class WarmUp:
    """A warm-up of its own process. `changes` are values of its modules, by name."""

    def __init__(
        self,
        folder: Path,
        read: object,
        changes: Mapping[str, object] | None = None,
        before: Sequence[str] = (),
        report: Path | None = None,
    ) -> None:
        """`read` is the trace, or None for what lies there; `before` are words before the command."""
        self.report, self.trace = report or folder / "report.json", folder / "trace.json"
        self.settings = folder / "worker.env"
        if read is not None:
            self.trace.write_text(json.dumps(read), encoding="utf-8")
        files = [str(file) for file in (self.trace, self.report, self.settings)]
        program = [str(LIBRARY / "warm.py")]
        if changes is not None:
            program = ["-c", CHANGED, str(LIBRARY), repr(dict(changes))]
        command = [*before, sys.executable, "-I", "-S", "-B", *program, *files]
        self.log = folder / "warm.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def told(self) -> dict[str, Any]:
        """The report as it stands; empty if there is none yet."""
        if not self.report.exists():
            return {}
        found: dict[str, Any] = json.loads(self.report.read_text(encoding="utf-8"))
        return found

    def end(self) -> Warmed:
        """Wait for its end."""
        peak = 0
        while self.process.poll() is None:
            # Not what wait4(2) tells, which counts the parent's memory before exec(2).
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
            peak = int(found[1]) << 10 if found else peak
            time.sleep(0.01)
        said = self.log.read_text(encoding="utf-8")
        return Warmed(self.process.returncode, said, self.told(), peak)


def warm(folder: Path, read: object, **changes: object) -> Warmed:
    """Run one from its start to its end."""
    return WarmUp(folder, read, changes or None).end()
