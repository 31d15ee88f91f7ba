"""Facts about who may do what: programs with another's rights, users, and the keys that let them in.

Input: `packages` (`apt` or `rpm`).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

SEARCH = 15.0  # seconds
# What is no part of the image, or is judged elsewhere.
PRUNED = ("/proc", "/sys", "/dev", "/run", "/var/lib/docker", "/var/lib/containerd", "/snap")


def identity(path: str) -> str:
    """Mode, owner and the hash of the content."""
    known = os.lstat(path)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return f"{known.st_mode & 0o7777:o} {known.st_uid}:{known.st_gid} {digest}"


def output(*command: str) -> str:
    """What a command prints, whatever its exit code; LC_ALL keeps it English."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    return done.stdout.decode(errors="replace")


def setuid_files() -> list[str] | None:
    """Every setuid or setgid file of the root file system; None where that takes too long."""
    pruned = [word for place in PRUNED for word in ("-path", place, "-o")]
    wanted = ["-prune", "-o", "-type", "f", "-perm", "/6000", "-print0"]
    search = ["find", "/", "-xdev", "(", *pruned[:-1], ")", *wanted]
    try:
        done = subprocess.run(search, capture_output=True, check=False, timeout=SEARCH if TIMED else None)
    except subprocess.TimeoutExpired:
        return None
    return sorted(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)


def packaged(paths: list[str], manager: str) -> list[str]:
    """Those of the files that a package delivered."""
    if manager == "rpm":
        return [path for path in paths if "is not owned" not in output("rpm", "--query", "--file", path)]
    # /bin is a link to /usr/bin, and a package may name either.
    names = {name: path for path in paths for name in (path, path[4:] if path.startswith("/usr/") else path)}
    lines = output("dpkg-query", "--search", *names).splitlines() if names else []
    return sorted({names[line.rpartition(": ")[2]] for line in lines if line.rpartition(": ")[2] in names})


def users() -> dict[str, str]:
    """Name -> user id, group id, home and shell."""
    lines = [line.split(":") for line in Path("/etc/passwd").read_text(errors="replace").splitlines()]
    return {one[0]: f"{one[2]}:{one[3]} {one[5]} {one[6]}" for one in lines if len(one) > 6}


def authorized_keys(homes: list[str]) -> dict[str, str]:
    """The files with the keys that let users in."""
    files = [Path(home, ".ssh", name) for home in homes for name in ("authorized_keys", "authorized_keys2")]
    return {str(path): identity(str(path)) for path in files if path.is_file()}


def main() -> None:
    """Print the facts."""
    found, known = setuid_files(), users()
    homes = sorted({entry.split(" ")[1] for entry in known.values()})
    there = [path for path in found or [] if Path(path).exists()]
    facts = {
        "setuid": {path: identity(path) for path in there},
        "packaged": packaged(there, GIVEN["packages"]),
        "changed": {path: os.lstat(path).st_ctime for path in there},
        "users": known,
        "authorized_keys": authorized_keys(homes),
        "unfinished": ["setuid"] if found is None else [],
    }
    print(json.dumps(facts))


GIVEN = json.load(sys.stdin)
TIMED = bool(GIVEN.get("seconds"))
main()
