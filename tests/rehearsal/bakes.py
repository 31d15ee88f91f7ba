"""`bake … --rehearse --json`, as a person or a timer starts it, on the cloud of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def start(
    desk: Path, profile: str = "g6e-ubuntu", *, profiles: Path | None = None, checkout: Path = ROOT
) -> subprocess.Popen[str]:
    """Start a rehearsal in the folder `desk`, where it leaves its runs and its lock."""
    places = ["--profiles", str(profiles or checkout / "profiles")]
    return subprocess.Popen(
        [sys.executable, "-m", "bake.cli", *places, "--profile", profile, "--rehearse", "--json"],
        cwd=desk,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Outcome:
    """How a rehearsal ended: its exit code, its events, and what it said on stderr."""

    desk: Path
    code: int
    events: list[dict[str, Any]]
    errors: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def directory(self) -> Path:
        """The run's."""
        return self.desk / str(self.of("run")[0]["directory"])

    @property
    def manifest(self) -> dict[str, Any]:
        """What a whole bake leaves of itself."""
        found: dict[str, Any] = json.loads((self.directory / "manifest.json").read_text())
        return found


def finish(process: subprocess.Popen[str], desk: Path, timeout: float = 3600) -> Outcome:
    """Wait for its end."""
    out, errors = process.communicate(timeout=timeout)
    return Outcome(desk, process.returncode, [json.loads(line) for line in out.splitlines()], errors)


def rehearse(desk: Path, profile: str, **places: Any) -> Outcome:
    """A rehearsal from its start to its end."""
    return finish(start(desk, profile, **places), desk)
