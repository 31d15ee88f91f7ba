"""What the package manager says: packages that are not sound, and files of the system's Python that differ.

Input: `packages` (`apt` or `rpm`) and `system_python` (packages, as patterns).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

# Contents alone: times, owners and links may differ where an image was copied.
CONTENTS = ["--nomtime", "--nomode", "--nouser", "--nogroup", "--nordev", "--nolinkto", "--nodeps"]


def output(*command: str) -> str:
    """What a command prints, whatever its exit code; LC_ALL keeps it English."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    return done.stdout.decode(errors="replace")


def python_packages(manager: str, patterns: list[str]) -> list[str]:
    """The installed packages that match."""
    if manager == "apt":
        shown = output("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *patterns)
        return sorted({line.split()[0] for line in shown.splitlines() if line.endswith(" installed")})
    return output("rpm", "--query", "--all", "--queryformat", "%{NAME} ", *patterns).split()


def changed_files(manager: str, names: list[str]) -> dict[str, str]:
    """Path -> what differs, and its hash now. Lines with " c " are of settings, which may change."""
    verify = ("dpkg", "--verify") if manager == "apt" else ("rpm", "--verify", *CONTENTS)
    lines = output(*verify, *names).splitlines() if names else []
    found = {}
    for line in lines:
        flags, _, path = line.partition("/")
        if path and " c " not in line:
            found["/" + path] = f"{flags.strip()} {digest('/' + path)}"
        elif line.strip() and " c " not in line:
            found[line] = ""
    return found


def digest(path: str) -> str:
    """The hash of a file's content, or where its link leads; nothing of a file that is not there."""
    try:
        content = os.fsencode(Path(path).readlink()) if Path(path).is_symlink() else Path(path).read_bytes()
    except OSError:
        return "-"
    return hashlib.sha256(content).hexdigest()


def unsound(manager: str) -> list[str]:
    """Lines about packages that are installed in part, or miss what they need."""
    if manager == "apt":
        return [line for line in output("dpkg", "--audit").splitlines() if line.strip()]
    return output("rpm", "--verify", "--all", "--nofiles", "--noscripts").splitlines()


def main() -> None:
    """Print the facts."""
    given = json.load(sys.stdin)
    manager = given["packages"]
    names = python_packages(manager, given["system_python"])
    facts = {
        "python_packages": names,
        "changed_python": changed_files(manager, names),
        "unsound_packages": dict.fromkeys(unsound(manager), ""),
    }
    print(json.dumps(facts))


main()
