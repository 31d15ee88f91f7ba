"""How this machine started: systemd's times, cloud-init's, the warm-up's report, and the workers' stages.

Input: nothing. Output, in seconds since boot (CLOCK_BOOTTIME): `now`, `container` (whether the kernel ran
before), `userspace` (when systemd started) and `finished` (its last job of the boot, null while there is
one), `workers` (of each unit that is active: `unit`, `started`, `ready`, `restarts`). `cloud_init` has the
seconds of its stages. `warm` and `starts` are texts of files, for those who know their format: the
warm-up's report, null if there is none, and by its name each worker's file.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

WARM = Path("/run/flux-warm/report.json")
STARTS = Path("/run/flux-worker")
CLOUD_INIT = Path("/run/cloud-init/status.json")
LONGEST = 65536  # characters of a file; they are small, and written by others
OF_UNITS = "Id,ActiveState,NRestarts,ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic"


def printed(*words: str) -> str:
    """What a command prints; empty if it can't be run."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return ""
    return done.stdout


def shown(*words: str) -> list[dict[str, str]]:
    """The properties of each unit that `systemctl show` tells of."""
    blocks = printed("systemctl", "show", *words).strip().split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def clock() -> float:
    """Seconds since boot, with those in which the machine slept."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def seconds(properties: dict[str, str], name: str) -> float | None:
    """A time of systemd's, in microseconds of CLOCK_MONOTONIC; it tells 0 for what has not come."""
    value = properties.get(name, "")
    slept = clock() - time.monotonic()
    return round(int(value) / 1e6 + slept, 6) if value.isdigit() and int(value) else None


def manager() -> dict[str, float | None]:
    """When systemd started, and when it had done all that belongs to the boot."""
    [told] = shown("-p", "UserspaceTimestampMonotonic,FinishTimestampMonotonic") or [{}]
    userspace, finished = (seconds(told, f"{name}TimestampMonotonic") for name in ("Userspace", "Finish"))
    return {"userspace": userspace, "finished": finished}


def workers() -> list[dict[str, object]]:
    """The workers' units that are active; of one that starts others, systemd has no times."""
    found = shown("flux-worker.service", "flux-worker@*.service", "-p", OF_UNITS)
    return [
        {
            "unit": one.get("Id"),
            "started": seconds(one, "ExecMainStartTimestampMonotonic"),
            "ready": seconds(one, "ActiveEnterTimestampMonotonic"),
            "restarts": int(one["NRestarts"]) if one.get("NRestarts", "").isdigit() else 0,
        }
        for one in found
        if one.get("ActiveState") == "active"
    ]


def text(file: Path) -> str | None:
    """A file's text, if it is there."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(LONGEST)
    except OSError:
        return None


def cloud_init() -> dict[str, float]:
    """The seconds of cloud-init's stages, as it tells them; none if it does not."""
    try:
        stages = json.loads(text(CLOUD_INIT) or "")["v1"].items()
        times = {name: (one["start"], one["finished"]) for name, one in stages if isinstance(one, dict)}
        return {name: round(end - start, 2) for name, (start, end) in times.items() if start and end}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def facts() -> dict[str, object]:
    """All of it."""
    kind = printed("systemd-detect-virt", "--container").strip()
    starts = {file.name: text(file) for file in sorted(STARTS.glob("start*.json"))[:100]}
    return {
        "now": clock(),
        "container": kind not in ("", "none"),
        **manager(),
        "workers": workers(),
        "cloud_init": cloud_init(),
        "warm": text(WARM),
        "starts": starts,
    }


if __name__ == "__main__":
    print(json.dumps(facts()))
