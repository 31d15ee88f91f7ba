"""Ends a builder when its lease runs out, unless a renewal came; runs on the builder, with its Python alone.

    lease.py boot SETTINGS     arm the timer at a boot, for the later of the first and the last known expiry
    lease.py renew SETTINGS    move the expiry, on the disk for the next boot, and the timer
    lease.py still             exit 0 and arm the timer again if the lease goes on; asked before the end

SETTINGS is a JSON object: `expires` (seconds since 1970 by AWS's clock), `length` (of the lease, seconds),
`kept` (the file that outlives a reboot), `units` (the folder for units) and `name` (of the units).

The time is AWS's, from the metadata service, and the timer counts seconds from now on: the machine's own
clock may be wrong before NTP, and a correction moves no timer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

TOKEN = "http://169.254.169.254/latest/api/token"  # noqa: S105
TRIES = 3
GRACE = 300  # seconds for NTP to mend the machine's own clock, where AWS's is not to be had
HERE = Path(sys.argv[0]).resolve().parent

# Runs while the machine shuts down, too: without the default dependencies nothing stops it, and the `@`
# spares it when systemd kills what is left, so that it can end a shutdown that hangs. If the script can't
# even start, since the disk is gone, PID 1 powers off by itself.
SERVICE = """[Unit]
Description=Power the builder off: the lease of its bake has run out
DefaultDependencies=no
IgnoreOnIsolate=yes
FailureAction=poweroff-immediate

[Service]
Type=oneshot
ExecStart=@/bin/sh @{name} {here}/end.sh
StandardOutput=journal+console
OOMScoreAdjust=-1000
TimeoutStartSec=330
"""
TIMER = """[Unit]
Description=Until the lease of the bake runs out
DefaultDependencies=no
IgnoreOnIsolate=yes

[Timer]
OnActiveSec={seconds}
AccuracySec=1
"""
END = """timeout -k 5 40 {python} {here}/lease.py still && exit 0
echo 'the lease of this bake has run out: powering off'
timeout -k 5 30 systemctl -i --no-wall poweroff
sleep 60
timeout -k 5 30 systemctl --force poweroff
sleep 60
systemctl --force --force poweroff
exit 1
"""


def main() -> int:
    """Do what the first argument says; return the exit code."""
    verb = sys.argv[1]
    known = json.loads(sys.argv[2] if verb != "still" else (HERE / "settings.json").read_text())
    if verb == "boot":
        known["expires"] = max(known["expires"], kept(known))
    elif verb == "renew":
        keep(known)
    left = seconds_left(known, GRACE if verb == "boot" else 0)
    if verb == "still" and left <= 0:
        return 1
    arm(known, left)
    return 0


def kept(known: dict[str, Any]) -> int:
    """The expiry that the last renewal wrote to the disk; 0 without any."""
    try:
        return int(Path(known["kept"]).read_text())
    except (OSError, ValueError):
        return 0


def keep(known: dict[str, Any]) -> None:
    """Write the expiry to the disk: a machine that dies the next moment still has it."""
    file = Path(known["kept"])
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(file, f"{known['expires']}\n")


def seconds_left(known: dict[str, Any], grace: float) -> float:
    """Seconds until the expiry, a whole lease at most, whatever a clock says."""
    now = aws_time()
    left = float(known["expires"]) - (time.time() if now is None else now)
    if now is None:
        left = max(left, grace)
    return min(left, float(known["length"]))


def aws_time() -> float | None:
    """The metadata service's time, in seconds since 1970; None if it gives none."""
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    request = Request(TOKEN, method="PUT", headers=headers)
    for _ in range(TRIES):
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=5) as answer:
                return parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except (OSError, TypeError, ValueError):
            time.sleep(1)
    return None


def arm(known: dict[str, Any], left: float) -> None:
    """Write the units and start the timer anew; what has run out ends the machine within a second."""
    write(HERE / "settings.json", json.dumps(known))
    write(HERE / "end.sh", END.format(here=HERE, python=sys.executable))
    units = Path(known["units"])
    units.mkdir(parents=True, exist_ok=True)
    write(units / (known["name"] + ".service"), SERVICE.format(here=HERE, name=known["name"]))
    write(units / (known["name"] + ".timer"), TIMER.format(seconds=max(1, round(left))))
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    # cloud-init runs this within the boot, whose end a job that waits must not wait for.
    subprocess.run(["systemctl", "restart", "--no-block", known["name"] + ".timer"], check=True)


def write(file: Path, text: str) -> None:
    """Replace a file: it is the old or the new one at any time."""
    new = file.with_name(file.name + ".new")
    with new.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


if __name__ == "__main__":
    sys.exit(main())
