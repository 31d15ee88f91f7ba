"""What the first boot of an image made, and what the worker takes: host keys, machine id, memory.

Input: `services`, the workers' units. Output: `booted` (when systemd started, in seconds since 1970), `keys`
(host key file -> seconds after that at which it was written), `machine_id` and `machine_id_after` likewise,
`memory` (the largest resident bytes of a unit's main process, null if that is not known), `total` (bytes of
the machine's memory that the kernel shows).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

ETC = Path("/etc")


def shown(*words: str) -> str:
    """The value of a property, as `systemctl show` prints it; empty if it does not."""
    done = subprocess.run(["systemctl", "show", "--value", *words], stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def booted() -> float:
    """When systemd started: its own clock is the kernel's, which a container shares with its host."""
    since = int(shown("-p", "UserspaceTimestampMonotonic") or 0) / 1e6
    return time.time() - (time.monotonic() - since)


def written(file: Path, start: float) -> float:
    """Seconds from the boot to the last change of a file; negative if it is older."""
    return round(file.stat().st_mtime - start, 1)


def memory_of(service: str) -> int | None:
    """The largest resident size of the unit's main process, by proc(5)."""
    try:
        text = Path("/proc", shown("-p", "MainPID", service) or "0", "status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else None


def total() -> int | None:
    """The machine's memory."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    return int(found[1]) * 1024 if found else None


def facts(services: list[str]) -> dict[str, object]:
    """All of it."""
    start, identity = booted(), ETC / "machine-id"
    there = identity.is_file()
    return {
        "booted": round(start, 1),
        "keys": {str(file): written(file, start) for file in sorted(ETC.glob("ssh/ssh_host_*_key"))},
        "machine_id": identity.read_text().strip() if there else "",
        "machine_id_after": written(identity, start) if there else None,
        "memory": max((size for size in map(memory_of, services) if size), default=None),
        "total": total(),
    }


if __name__ == "__main__":
    print(json.dumps(facts(json.load(sys.stdin)["services"])))
