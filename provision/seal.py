#!/usr/bin/env python3
"""Why: everything on an image is on each machine that boots it, so keys, identity, traces and caches must go.

    seal.py delete [--list FILE] [--keep PATH]...   remove what the list names, then discard freed blocks
    seal.py check  [--list FILE] [--keep PATH]...   print what is left of it, one path a line; exit 1 if any
    seal.py both   [--list FILE] [--keep PATH]...   delete, then check; all is said in one JSON object

Run as root with any Python from 3.9 on. The list is seal.yaml as JSON, by default `seal.json` beside this
program. `delete` removes /opt/bake as well, so both files are copied to a folder in /run first (memory,
which no snapshot holds) and run from there:

    install -d -m 700 /run/bake-seal && cp /opt/bake/seal.py /opt/bake/seal.json /run/bake-seal/
    /usr/bin/python3 /run/bake-seal/seal.py both --keep /home/ubuntu/.cache/huggingface/hub

An SSH session that is open survives; no new one can be opened. Stop the machine by the API afterwards.
`delete` can be repeated. It goes on after a failure, names all of them on stderr and exits 1. `both` is what
the bake runs: another sudo or login between the two would be logged, and the check would find it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import fnmatch
import glob
import io
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
DISK_FILESYSTEMS = {"ext4", "xfs", "btrfs"}
# cloud-init's data about this instance: root's file, and the only one of older versions.
INSTANCE_DATA = [Path(f"/run/cloud-init/instance-data{kind}.json") for kind in ("-sensitive", "")]
# Keys of the metadata that identify this instance.
OWN = {
    "hostname",
    "local-hostname",
    "public-hostname",
    "local-ipv4",
    "local-ipv4s",
    "public-ipv4",
    "public-ipv4s",
}
OWN |= {"ipv6", "ipv6s", "mac", "instance-id", "interface-id"}
# Of /proc/net/tcp and tcp6 (proc(5)): state and port in hexadecimal, addresses in the order of their words.
ESTABLISHED, SSH_PORT = "01", ":0016"
LOOPBACK = re.compile(r"([0-9A-F]{6}7F|0{24}01000000|0{16}FFFF0000[0-9A-F]{6}7F):")
CONNECTED = "Systems Manager's agent was not stopped: the bake is connected through it; its files are gone"


def main() -> int:
    """Seal the machine, or check that it is sealed."""
    parser = argparse.ArgumentParser(description="Seal a machine before it becomes an image.")
    parser.add_argument("verb", choices=("delete", "check", "both"))
    parser.add_argument("--list", type=Path, default=Path(__file__).with_name("seal.json"))
    parser.add_argument("--keep", action="append", default=[], help="a path that must survive")
    arguments = parser.parse_args()
    seal = json.loads(arguments.list.read_text(encoding="utf-8"))
    kept = [Path(path) for path in [*seal["keep"], *arguments.keep]]
    if arguments.verb == "check":
        return check(seal)
    if arguments.verb == "both":
        # If the connection broke, the first run may not have ended.
        with arguments.list.open("rb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            return both(seal, kept)
    failures = delete(seal, kept)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def both(seal: dict[str, Any], kept: list[Path]) -> int:
    """Delete, delete again what was written meanwhile, check; print the result as one JSON object."""
    said = io.StringIO()
    gone: dict[str, int] = {}
    with contextlib.redirect_stdout(said):
        failures = delete(seal, kept, gone)
        connected = [CONNECTED] if reached_from_here() else []
        late = [f"{path}: written to again, and removed again: {held_by(path)}" for path, _ in left_of(seal)]
        # A process that can't be stopped may have written one more line. One that goes on is found below.
        failures += remove(seal["entries"], kept, gone) if late else []
    entries = [
        {
            "case": entry.get("case", ""),
            "path": entry["path"],
            "action": entry["action"],
            "gone": gone.get(entry["path"], 0),
            "left": [f"{path}  ({entry['why']}): {held_by(path)}" for path in leftovers(entry)],
        }
        for entry in seal["entries"]
    ]
    left = [line for entry in entries for line in entry["left"]]
    told = {
        "log": said.getvalue(),
        "notes": connected + late,
        "failures": failures,
        "left": left,
        "entries": entries,
    }
    print(json.dumps(told))
    return 1 if failures or left else 0


def delete(seal: dict[str, Any], kept: list[Path], counts: dict[str, int] | None = None) -> list[str]:
    """Stop writers, remove what is listed, discard the freed blocks; return failures."""
    carriers = [] if reached_from_here() else seal.get("stop_unless_connected_through", [])
    return silence([*seal["stop"], *carriers]) + silence_audit() + remove(seal["entries"], kept, counts)


def reached_from_here(tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> bool:
    """Whether SSH comes from this machine itself, as through Session Manager, whose agent is its client."""
    for table in tables:
        with contextlib.suppress(OSError):  # a machine without IPv6
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                local, remote, state = line.split()[1:4]
                if state == ESTABLISHED and local.endswith(SSH_PORT) and LOOPBACK.match(remote):
                    return True
    return False


def remove(
    entries: list[dict[str, Any]], kept: list[Path], counts: dict[str, int] | None = None
) -> list[str]:
    """Remove what is listed and discard the freed blocks; return failures, and add to `counts` by path."""
    failures = []
    mounts: set[Path] = set()
    for entry in entries:
        gone = 0
        for path in leftovers(entry):
            if any(path == keep or path in keep.parents or keep in path.parents for keep in kept):
                failures.append(f"{path}: listed to be removed, and to be kept: left as it is")
                continue
            mounts.add(mount_of(path))
            try:
                gone += destroy(path, entry)
            except FileNotFoundError:
                continue  # its owner removed it
            except OSError as error:
                failures.append(f"{path}: {error.strerror or error}")
        if gone:
            if counts is not None:
                counts[entry["path"]] = counts.get(entry["path"], 0) + gone
            print(f"{entry['action']} {entry['path']}: {gone} files ({entry['why']})")
    os.sync()
    for mount in sorted(mounts | {Path("/")}):
        discard(mount)
    return failures


def check(seal: dict[str, Any]) -> int:
    """Print everything the list names that is still there."""
    left = left_of(seal)
    for path, why in left:
        print(f"{path}  ({why})")
    return 1 if left else 0


def left_of(seal: dict[str, Any]) -> list[tuple[Path, str]]:
    """Return what the list names and is still there, each with its reason."""
    return [(path, entry["why"]) for entry in seal["entries"] for path in leftovers(entry)]


def held_by(path: Path) -> str:
    """Name the processes that have the file open, most likely its writers."""
    holders = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # the process ended, or closed the file
            if link.readlink() == path:
                command = link.parents[1].joinpath("comm").read_text().strip()
                holders.add(f"process {link.parts[2]} ({command})")
    return f"open in {', '.join(sorted(holders))}" if holders else "no process has it open now"


def silence(units: list[str]) -> list[str]:
    """Stop what would write to the disk again, the persistent journal included."""
    command = ["systemctl", "list-units", "--state=active", "--plain", "--no-legend", "--no-pager", *units]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    # Without a pattern systemctl lists all units there are.
    running = [line.split()[0] for line in listed.splitlines() if line.strip()] if units else []
    stop = [["systemctl", "stop", *running]] if running else []
    failures = []
    for command in [*stop, ["journalctl", "--relinquish-var"]]:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            failures.append(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return failures


def silence_audit() -> list[str]:
    """Keep auditd quiet until the machine stops; it is as enabled as before, and starts with the image.

    Its unit refuses `systemctl stop` (RefuseManualStop=yes). Rules that are locked (`-e 2`) refuse `-e 0`,
    but with its daemon gone nobody writes to the disk.
    """
    if shutil.which("auditctl"):
        subprocess.run(["auditctl", "-e", "0"], capture_output=True)
    if not active("auditd.service"):
        return []
    if shutil.which("service"):
        subprocess.run(["service", "auditd", "stop"], capture_output=True)
    if active("auditd.service"):  # what `service` does, where there is none, or none that knows how
        subprocess.run(["systemctl", "kill", "auditd.service"], capture_output=True)
    for _ in range(100):
        if not active("auditd.service"):
            return []
        time.sleep(0.1)
    return ["auditd.service: still runs after `service auditd stop`, and logs what the seal does"]


def active(unit: str) -> bool:
    """Whether the unit runs, or is about to end."""
    done = subprocess.run(["systemctl", "is-active", unit], capture_output=True, text=True)
    return done.stdout.strip() in ("active", "deactivating", "reloading")


def leftovers(entry: dict[str, Any]) -> Iterator[Path]:
    """Yield the paths of an entry that must go, for deleting and for checking."""
    for path in (path for pattern in patterns(entry["path"]) for path in matches(pattern)):
        if entry["action"] == "remove":
            yield from [path] if not entry.get("own") or names_us(path) else []
        elif entry["action"] == "empty":
            yield from sorted(path.iterdir()) if path.is_dir() else []
        elif entry["action"] == "lines":
            yield from [path] if names_us(path) else []
        elif is_file(path) and path.stat().st_size > 0:
            yield path


def patterns(pattern: str) -> list[str]:
    """Expand a leading `~` for the home of each user."""
    if not pattern.startswith("~"):
        return [pattern]
    return sorted({user.pw_dir.rstrip("/") + pattern[1:] for user in pwd.getpwall()})


def matches(pattern: str) -> list[Path]:
    """Return what the pattern matches. `/**` never follows links, which lead out of the folder."""
    top, deep, tail = pattern.partition("/**")
    if not deep:
        return [Path(path) for path in sorted(glob.glob(pattern))]  # noqa: PTH207  # Path.glob skips dead links
    name = tail.lstrip("/") or "*"
    below = (Path(folder, file) for folder, _, files in os.walk(top) for file in files)
    return sorted(path for path in below if fnmatch.fnmatch(path.name, name))


def is_file(path: Path) -> bool:
    """Whether this is a file itself, and no link to one."""
    return stat.S_ISREG(path.lstat().st_mode)


@lru_cache
def own_names() -> re.Pattern[bytes]:
    """Finds this instance's names and addresses, as EC2 gave them to it, in any case."""
    file = next((file for file in INSTANCE_DATA if file.exists()), None)
    if file is None:
        sys.exit(f"{INSTANCE_DATA[0]}: not there, so that nobody knows this machine's own names")
    known = set(own_values(json.loads(file.read_text(encoding="utf-8")).get("ds")))
    known |= {name.split(".")[0] for name in known if not name.replace(".", "").isdigit()}
    if not known:
        sys.exit(f"{file}: says nothing of this machine's own names")
    either = b"|".join(re.escape(name.encode()) for name in sorted(known, key=len, reverse=True))
    return re.compile(rb"(?<![0-9A-Za-z])(?:" + either + rb")(?![0-9A-Za-z])", re.IGNORECASE)


def own_values(data: object, key: str = "") -> Iterator[str]:
    """The values of the keys in OWN, wherever they stand: cloud-init's versions differ in that."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from own_values(value, name.replace("_", "-"))
    elif isinstance(data, list):
        for value in data:
            yield from own_values(value, key)
    elif key in OWN:
        yield from str(data).split()


def names_us(path: Path) -> bool:
    """Whether this is a file, and no link to one, with a name or address of this instance in it."""
    return is_file(path) and own_names().search(path.read_bytes()) is not None


def destroy(path: Path, entry: dict[str, Any]) -> int:
    """Empty or remove one path; return how many files went."""
    folder = path.is_dir() and not path.is_symlink()
    files = [Path(top, name) for top, _, names in os.walk(path) for name in names] if folder else [path]
    if entry.get("overwrite"):
        for file in files:
            overwrite(file)
    if entry["action"] == "truncate":
        os.truncate(path, 0)
    elif entry["action"] == "lines":
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(line for line in lines if not own_names().search(line)))
    elif folder:
        shutil.rmtree(path)
    else:
        path.unlink()
    return len(files)


def overwrite(path: Path) -> None:
    """Overwrite the content with zeros, on disk, before its blocks are freed."""
    if not is_file(path) or path.stat().st_nlink > 1:
        return  # a hard link's other name must keep its content
    with path.open("r+b") as file:
        left = path.stat().st_size
        while left > 0:
            left -= file.write(bytes(min(left, CHUNK)))
        file.flush()
        os.fsync(file.fileno())


def mount_of(path: Path) -> Path:
    """The mount point that `path` lies below."""
    path = path.parent.resolve()
    while not path.is_mount():
        path = path.parent
    return path


def discard(mount: Path) -> None:
    """Discard freed blocks, so that the snapshot does not contain them."""
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", str(mount)], capture_output=True, text=True)
    if kind.stdout.strip() not in DISK_FILESYSTEMS:
        return
    done = subprocess.run(["fstrim", "--verbose", str(mount)], capture_output=True, text=True)
    if done.returncode == 0:
        print(done.stdout.strip())
        return
    # Overwriting all free space instead would cost minutes, and a snapshot of the volume's full size. Files
    # with secrets were overwritten one by one, so only caches and downloads stay in freed blocks.
    print(
        f"{mount}: freed blocks could not be discarded ({done.stderr.strip()}); the files that hold secrets"
    )
    print(
        f"{mount}: were overwritten before they were removed, other removed files stay readable in a snapshot"
    )


if __name__ == "__main__":
    sys.exit(main())
