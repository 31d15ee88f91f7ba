"""Where the machine's distribution publishes security updates: for who looks for them without the machine.

A module of the probe `inventory`, sent with it. A URL's user and password are left out.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

# A module that is sent with this one.
from installed import found, output, text_of  # type: ignore[import-not-found]

POCKET = re.compile(r"-security$|/updates$")
TARGET = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ARCHITECTURE)"
# Repositories of Amazon Linux itself; advisories of others are not about the distribution.
OWN = re.compile(r"(amazonlinux|amzn)(?!.*(source|debug))")
VARIABLES = ("etc/yum/vars/*", "etc/dnf/vars/*")

Source = dict[str, Any]


def of_updates(root: Path, kind: str) -> list[Source]:
    """The pockets of apt's sources, or the enabled repositories of Amazon Linux."""
    return of_dnf(root) if kind == "rpm" else of_apt()


def bare(url: str) -> str:
    """A URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def of_apt() -> list[Source]:
    """As apt itself understands its sources, of the machine's own architecture."""
    told = output("apt-get", "indextargets", "--no-release-info", "--format", TARGET, "Created-By: Packages")
    return pockets(told, output("dpkg", "--print-architecture").strip())


def pockets(told: str, own: str) -> list[Source]:
    """One for each pocket, with its components."""
    parts: dict[tuple[str, str], list[str]] = {}
    for line in told.splitlines():
        url, release, component, architecture = line.split("|")
        if POCKET.search(release) and architecture == own:
            parts.setdefault((bare(url), release), []).append(component)
    return [
        {"kind": "apt", "url": url, "suite": suite, "components": sorted(set(names)), "arch": own}
        for (url, suite), names in sorted(parts.items())
    ]


def of_dnf(root: Path) -> list[Source]:
    """As files name them. Updates are taken from the latest release, whatever the machine keeps to."""
    arch = output("uname", "-m").strip()
    known = {path.name: text_of(path).strip() for path in found(root, VARIABLES)}
    known.update(releasever="latest", basearch=arch, arch=arch)
    told = []
    for file in found(root, ["etc/yum.repos.d/*.repo"]):
        parsed = configparser.ConfigParser(interpolation=None, strict=False)
        parsed.read_string(text_of(file))
        for name in parsed.sections():
            section = parsed[name]
            if OWN.match(name) and section.get("enabled", "1").strip() in ("1", "true", "yes", "True"):
                told += repository(section, known, arch)
    return told


def repository(section: Any, known: dict[str, str], arch: str) -> list[Source]:
    """Its mirrors, or else its place; nothing of one that has neither."""
    for kind in ("mirrorlist", "baseurl"):
        words = section.get(kind, "").split()
        if words:
            url = re.sub(r"\$\{?(\w+)\}?", lambda one: known.get(one[1], one[0]), words[0])
            return [{"kind": kind, "url": bare(url), "arch": arch}]
    return []
