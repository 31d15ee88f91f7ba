"""Facts about users, listening ports, failed units and the root file system.

Input: `salt`, which is hashed with what opens an account, so that a change is seen and no hash gets out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}

# Where a login, a service or cloud-init would pick a variable up.
ENVIRONMENT_PLACES = (
    "etc/environment",
    "etc/environment.d/**/*",
    "etc/profile",
    "etc/profile.d/**/*",
    "etc/bash.bashrc",
    "etc/security/**/*",
    "etc/default/**/*",
    "etc/flux-worker/**/*",
    "etc/systemd/**/*",
    "root/.profile",
    "root/.bashrc",
    "home/*/.profile",
    "home/*/.bashrc",
)
HF_HOME = re.compile(r"^[^#\n]*\bHF_HOME=.*", re.MULTILINE)


def address(text: str) -> str:
    """Turn `0100007F` (or 32 digits) of /proc/net into an IP address; words are in host byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def listening() -> dict[str, list[object]]:
    """Every socket that waits for others: protocol, address, port."""
    found: dict[str, list[object]] = {}
    for protocol, state in LISTENING.items():
        table = Path("/proc/net", protocol)
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for line in lines:
            columns = line.split()
            if columns[3] == state:
                where, port = columns[1].split(":")
                entry = (protocol, address(where), int(port, 16))
                found[f"{entry[2]} ({protocol}, {entry[1]})"] = list(entry)
    return found


def with_password(salt: str) -> dict[str, str]:
    """Accounts that a password, or none at all, opens: `empty`, or a salted hash of its entry."""
    fields = [line.split(":") for line in Path("/etc/shadow").read_text().splitlines() if line]
    opened = {name: entry for name, entry, *_ in fields if not entry.startswith(("!", "*"))}
    return {name: digest(salt + entry) if entry else "empty" for name, entry in opened.items()}


def digest(text: str) -> str:
    """A hash of it."""
    return hashlib.sha256(text.encode()).hexdigest()


def swap_entries() -> dict[str, str]:
    """Swap that a boot would switch on; what is on right now may belong to a host below."""
    table = Path("/etc/fstab")
    lines = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    units = Path("/etc/systemd/system").rglob("*.swap")
    return {
        **{str(unit): digest(unit.read_text(errors="replace")) for unit in units if unit.is_file()},
        **{words[0]: " ".join(words) for words in lines if len(words) > 2 and words[2] == "swap"},
    }


def setting_hf_home() -> dict[str, str]:
    """Files that put HF_HOME into an environment, with a hash of the lines that do."""
    files = (path for place in ENVIRONMENT_PLACES for path in Path("/").glob(place) if path.is_file())
    found = {str(path): HF_HOME.findall(path.read_text(errors="replace")) for path in files}
    return {path: digest("\n".join(lines)) for path, lines in found.items() if lines}


def failing_units() -> dict[str, str]:
    """Units of systemd that have failed, and those that have and are to be started again: unit -> which."""
    asked = ["systemctl", "list-units", "--state=failed,activating", "--plain", "--no-legend", "--no-pager"]
    lines = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
    states = {line.split()[0]: line.split()[3] for line in lines if len(line.split()) > 3}
    return {unit: state for unit, state in states.items() if state in ("failed", "auto-restart")}


def main() -> None:
    """Print the facts."""
    root = os.statvfs("/")
    facts = {
        "now": time.time(),
        "sockets": (sockets := listening()),
        "listening": dict.fromkeys(sockets, ""),
        "with_password": with_password(json.load(sys.stdin)["salt"]),
        "swap": swap_entries(),
        "hf_home": setting_hf_home(),
        "failing_units": (failing := failing_units()),
        "failed_units": {unit: "" for unit, state in failing.items() if state == "failed"},
        "root_bytes": root.f_blocks * root.f_frsize,
        "root_free_bytes": root.f_bavail * root.f_frsize,
    }
    print(json.dumps(facts))


main()
