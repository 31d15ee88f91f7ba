"""Figures of a whole rehearsal with warm caches: per step the wall time, what the controller itself took,
API calls and SSH commands; the CPU time of `bake --help`, and the wall time of `bake plan`.

    sudo .venv/bin/python tests/bench/bench_rehearsal.py

Figures, not verdicts: machines are noisy. The controller's share is the wall time of a step less what it
spent waiting for SSH commands, for calls of the API and for states in EC2.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BAKE = [sys.executable, "-m", "bake.cli"]


def help_cpu_seconds() -> float:
    """User and system time of `bake --help`, the median of five."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*BAKE, "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return sorted(times)[2]


def plan_seconds() -> float:
    """Wall time of `bake plan --rehearse` on a local cloud that is up already."""
    subprocess.run([*BAKE, "local", "up"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    try:
        started = time.monotonic()
        command = [*BAKE, "plan", "--profile", "g6e-ubuntu", "--rehearse"]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - started
    finally:
        subprocess.run([*BAKE, "local", "down"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    """Rehearse once, reading the events as they come, and print the table."""
    print(f"bake --help: {help_cpu_seconds():.2f} s of CPU")
    print(f"bake plan --rehearse, cloud up: {plan_seconds():.1f} s")
    process = subprocess.Popen(
        [*BAKE, "--profile", "g6e-ubuntu", "--rehearse", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    events = [json.loads(line) for line in process.stdout]
    if process.wait():
        sys.exit(f"the rehearsal failed with exit code {process.returncode}")
    steps = [event for event in events if event["event"] == "step_ended"]
    print(f"{'step':<16}{'wall s':>8}{'controller s':>14}{'API calls':>11}{'SSH commands':>14}")
    for step in steps:
        show(step["step"], step)
    whole = {
        key: sum(step[key] for step in steps) for key in ("seconds", "waited", "api_calls", "ssh_commands")
    }
    show("in all", whole)
    print(f"whole command: {events[-1]['at']:.1f} s to the AMI")


def show(name: str, step: dict[str, float]) -> None:
    """One row of the table."""
    own = step["seconds"] - step["waited"]
    print(f"{name:<16}{step['seconds']:>8.1f}{own:>14.1f}{step['api_calls']:>11}{step['ssh_commands']:>14}")


if __name__ == "__main__":
    main()
