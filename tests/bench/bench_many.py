"""Figures of two rehearsals side by side against one after the other: the wall time of the whole, and of each
bake its controller's CPU time and peak memory. The local cloud is up before, its caches are filled.

    sudo .venv/bin/python tests/bench/bench_many.py

Figures, not verdicts: machines are noisy. In a rehearsal the machines work on this host, too, so that two
side by side share its CPUs; on AWS only the controllers share this host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BAKE = [sys.executable, "-m", "bake.cli"]
PROFILES = ("g6e-ubuntu", "g6e-amazon-linux")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Use:
    """What a process has used, as far as it was last seen: CPU seconds, and peak memory in MB."""

    cpu: float = 0.0
    memory: float = 0.0

    def look(self, pid: int) -> None:
        """Read it from /proc, while the process is there."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            self.cpu = (int(times[11]) + int(times[12])) / TICKS
            self.memory = int(status.split("VmHWM:")[1].split()[0]) / 1000
        except (OSError, IndexError):
            return


def bake(at_once: int) -> tuple[float, dict[str, Use], dict[str, float]]:
    """Rehearse PROFILES; wall seconds, each process's use, and each bake's own wall seconds."""
    words = [word for name in PROFILES for word in ("--profile", name)]
    process = subprocess.Popen(
        [*BAKE, *words, "--rehearse", "--max-parallel", str(at_once), "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    began, pids, over = time.monotonic(), {"the parent": process.pid}, threading.Event()
    used: dict[str, Use] = {}

    def watch() -> None:
        while not over.wait(0.1):
            for name, pid in list(pids.items()):
                used.setdefault(name, Use()).look(pid)

    threading.Thread(target=watch, daemon=True).start()
    last = {}
    for line in process.stdout:
        last = json.loads(line)
        if last["event"] == "started":
            pids[last["profile"]] = last["pid"]
    code, seconds = process.wait(), time.monotonic() - began
    over.set()
    if code:
        sys.exit(f"the rehearsals ended with exit code {code}: {json.dumps(last, indent=2)}")
    return seconds, used, {one["profile"]: one["seconds"] for one in last["bakes"]}


def main() -> None:
    """Rehearse twice on one local cloud, and print the table."""
    subprocess.run([*BAKE, "local", "up"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    try:
        bake(2)  # whatever is built once is built
        for at_once, name in ((1, "one after the other"), (2, "side by side")):
            seconds, used, each = bake(at_once)
            print(f"{name}: {seconds:.0f} s")
            for process, use in used.items():
                wall = f"{each[process]:.0f} s" if process in each else ""
                print(f"  {process:<20}{wall:>7}{use.cpu:>8.1f} s of CPU{use.memory:>8.0f} MB at most")
    finally:
        subprocess.run([*BAKE, "local", "down"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
