"""Security updates that are pending by the index that provisioning took its own from.

Looked for in another way than they were installed: Ubuntu's versions are compared package by package, Amazon
Linux's advisories are asked for again. Input: `packages` (`apt` or `rpm`), `index` (the folder that
provision/updates.sh keeps) and `held` (patterns of what is left alone). Output: `no_index` (a stand-in has
none), `known` (entries of the index that concern an installed package) and `pending`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

POCKET = re.compile(r"-security$|/updates$")
TARGET = "$(RELEASE)|$(ARCHITECTURE)|$(FILENAME)"


def output(*command: str) -> str:
    """What a command prints; raises CalledProcessError where it fails. LC_ALL keeps it English."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, env=environment)
    return done.stdout.decode(errors="replace")


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Name, version and architecture of each package in an index of apt's."""
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture): *(\S+)", stanza, re.MULTILINE))
        if len(fields) == 3:
            yield fields


def newer(one: str, other: str) -> bool:
    """Whether dpkg takes the first version for the newer one."""
    return one != other and not subprocess.run(["dpkg", "--compare-versions", one, "gt", other]).returncode


def debs(index: Path) -> tuple[int, dict[str, str]]:
    """How many entries of the pockets concern an installed package, and what is newer than that."""
    shown = "${db:Status-Status} ${db:Status-Want} ${Package} ${Architecture} ${Version}\\n"
    rows = [line.split() for line in output("dpkg-query", "--show", "--showformat", shown).splitlines()]
    sound = [row[2:] for row in rows if len(row) == 5 and row[:2] == ["installed", "install"]]
    there = {(name, architecture): version for name, architecture, version in sound}
    lists = ("apt-get", "-o", f"Dir::State::Lists={index}/lists", "indextargets", "--format", TARGET)
    own = output("dpkg", "--print-architecture").strip()
    known, pending = 0, dict[str, str]()
    for release, architecture, file in (
        line.split("|") for line in output(*lists, "Created-By: Packages").splitlines()
    ):
        if not POCKET.search(release) or architecture != own:
            continue
        for one in stanzas(output("/usr/lib/apt/apt-helper", "cat-file", file)):
            version = there.get((one["Package"], one["Architecture"]))
            known += version is not None
            if version is not None and newer(one["Version"], version):
                pending[one["Package"]] = f"{version} → {one['Version']}"
    return known, pending


def rpms(index: Path) -> tuple[int, dict[str, str]]:
    """The same of advisories, each of which names packages."""
    manager = ["dnf", "--quiet", "--cacheonly", f"--setopt=cachedir={index}/cache"]
    release = re.search(r'^ID="?amzn', Path("/etc/os-release").read_text(), re.MULTILINE)
    manager += ["--releasever=latest"] if release else []
    lines = {
        which: output(*manager, "updateinfo", "list", "--security", f"--{which}").splitlines()
        for which in ("all", "updates")
    }
    names = [line.split()[-1] for line in lines["updates"] if "Sec." in line]
    return len(lines["all"]), {re.sub(r"-[^-]+-[^-]+$", "", name): name for name in names}


def main() -> None:
    """Print the facts."""
    given = json.load(sys.stdin)
    index = Path(given["index"])
    if (index / "no-index").exists():
        known, pending = 0, dict[str, str]()
    else:
        known, pending = debs(index) if given["packages"] == "apt" else rpms(index)
    left = {
        name: told
        for name, told in pending.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in given["held"])
    }
    print(json.dumps({"no_index": (index / "no-index").exists(), "known": known, "pending": left}))


if __name__ == "__main__":
    main()
