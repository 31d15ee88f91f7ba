"""`bake … --rehearse --json` as a user or a timer runs it, on the tests' cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
SPOT = "g6e-spot"
UNATTESTED = "profiles-unattested"


# What other tools are told on a user's machine, and a rehearsal must not hear of.
HOSTILE = {
    "AWS_CA_BUNDLE": "/nowhere",
    "AWS_CONFIG_FILE": "/proc/version",  # no configuration file
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_PROFILE": "nobody",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "bogus",
    "AWS_SHARED_CREDENTIALS_FILE": "/proc/version",
    "AWS_STS_REGIONAL_ENDPOINTS": "bogus",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "CDPATH": "/",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_HUB_CACHE": "/proc/nowhere",
    "HF_HUB_ETAG_TIMEOUT": "x",
    "HF_HUB_OFFLINE": "1",
    "HF_TOKEN": "hf_wrong",
    "LC_ALL": "C",
    "PYTEST_ADDOPTS": "--bogus",
    "PYTEST_PLUGINS": "nowhere",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
    "SSL_CERT_FILE": "/nowhere",
    "TMPDIR": "/nowhere",
    "TRANSFORMERS_OFFLINE": "1",
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("ALL_PROXY", "all_proxy"), "socks5://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "[::1"),
}


def start(
    desk: Path,
    profile: str = "g6e-ubuntu",
    *,
    profiles: Path | None = None,
    checkout: Path = ROOT,
    runs: Path | None = None,
    environment: dict[str, str] | None = None,
    umask: int = -1,
    errors: IO[str] | int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a rehearsal in the folder `desk`, where it leaves its runs and its lock.

    Unless `profiles` are given, they are the checkout's, but nothing is attested: to read an image takes a
    fifth of the CPU time of such a bake, and test_attested.py is about that. `environment` is over this
    process's; with a `umask` other than -1 it starts with that one; `errors` is where its stderr goes.
    """
    places = ["--runs", str(runs)] if runs else []
    words = (*places, "--profile", profile, "--rehearse")
    profiles = profiles or _unattested(desk / UNATTESTED, checkout)
    how = {"checkout": checkout, "environment": environment, "umask": umask, "stderr": errors}
    return called(desk, *words, profiles=profiles, **how)


def _unattested(folder: Path, checkout: Path) -> Path:
    if not folder.exists():
        folder.mkdir(parents=True)
        for file in (checkout / "profiles").iterdir():
            more = "" if file.match("*.lock.yaml") or file.suffix != ".yaml" else "\nattest: false\n"
            (folder / file.name).write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    return folder


def resume(desk: Path, run: str) -> subprocess.Popen[str]:
    """Start `bake resume` in the folder of a rehearsal that was cut."""
    return called(desk, "resume", run)


def called(
    desk: Path,
    *words: str,
    profiles: Path | None = None,
    checkout: Path = ROOT,
    environment: dict[str, str] | None = None,
    as_json: bool = True,
    module: str = "bake.cli",
    **how: Any,
) -> subprocess.Popen[str]:
    """Start `bake … --json` in a folder; `how` is for Popen."""
    own = desk / UNATTESTED
    places = ("--profiles", str(profiles or (own if own.exists() else checkout / "profiles")))
    return subprocess.Popen(
        [sys.executable, "-m", module, *places, *words, *["--json"] * as_json],
        cwd=desk,
        env={**os.environ, "PYTHONPATH": str(checkout), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        **{"stderr": subprocess.PIPE, **how},
    )


def with_spot(folder: Path) -> Path:
    """Fill a new folder with the project's profiles, and SPOT: g6e-ubuntu on a spot builder with a reaper."""
    folder.mkdir(parents=True)
    for file in (ROOT / "profiles").glob("*.yaml"):
        (folder / file.name).write_text(file.read_text())
    (folder / f"{SPOT}.yaml").write_text(
        "extends: g6e-ubuntu\n"
        "attest: false\n"
        "builder: {market: spot, reaper: scheduler, reaper_role: '${BAKE_REAPER_ROLE}'}\n"
    )
    return folder


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
    def report(self) -> dict[str, Any]:
        """What a bake leaves of itself, however it ended."""
        return self.kept("report.json")

    def kept(self, name: str) -> dict[str, Any]:
        """A JSON file of the run's directory."""
        found: dict[str, Any] = json.loads((self.directory / name).read_text())
        return found


def finish(process: subprocess.Popen[str], desk: Path, timeout: float = 3600) -> Outcome:
    """Wait for its end."""
    out, errors = process.communicate(timeout=timeout)
    return Outcome(desk, process.returncode, [json.loads(line) for line in out.splitlines()], errors)


def rehearse(desk: Path, profile: str, **places: Any) -> Outcome:
    """A rehearsal from its start to its end."""
    return finish(start(desk, profile, **places), desk)
