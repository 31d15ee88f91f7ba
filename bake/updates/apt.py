"""Read the index of a -security pocket: the newest version of each package in it.

Each file is held against the hashes of the pocket's Release file. Its OpenPGP signature is not verified here,
where no key of the distribution is at hand: what a bake installs is verified by apt on the builder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bake.checks.inventory import Source
from bake.updates.installed import Fix, Installed
from bake.updates.web import READERS, Unreachable, Web, below, opened

RELEASE = 16 << 20  # bytes
INDEX = 128 << 20  # bytes, compressed


def fixes(source: Source, installed: Installed, web: Web) -> Iterator[Fix]:
    """What is newer in the pocket, of the components and the architecture that the machine uses."""
    pocket = below(source.url, f"dists/{source.suite}")
    release = _release(pocket, web)
    sums = {
        name: (sha256, int(size)) for sha256, size, name in re.findall(_SUM, _section(release), re.MULTILINE)
    }
    by_hash = re.search(r"^Acquire-By-Hash: yes", release, re.MULTILINE) is not None
    for component in source.components:
        wanted = f"{component}/binary-{source.arch}/Packages"
        name = next((wanted + ending for ending in READERS if wanted + ending in sums), None)
        if name is None:
            raise Unreachable(f"{pocket} has no {wanted}")
        sha256, size = sums[name]
        where = f"{name.rpartition('/')[0]}/by-hash/SHA256/{sha256}" if by_hash else name
        content = web.verified(below(pocket, where), sha256, size, INDEX)
        listed = _packages(opened(name, content).decode(errors="replace"), installed.names)
        yield from (fix for fix in listed if installed.of_fix(fix) is not None)


_SUM = r"^ ([0-9a-f]{64}) +(\d+) +(\S+)$"


def _release(pocket: str, web: Web) -> str:
    try:
        content = web.get(below(pocket, "InRelease"), RELEASE)
    except Unreachable:
        content = web.get(below(pocket, "Release"), RELEASE)
    return content.decode(errors="replace").replace("\r\n", "\n")


def _section(release: str) -> str:
    """The lines of the SHA256 sums; those of weaker hashes have the same form."""
    found = re.search(r"^SHA256:[ \t]*\n((?: .*\n?)+)", release, re.MULTILINE)
    return found[1] if found else ""


def _packages(text: str, names: frozenset[str]) -> Iterator[Fix]:
    """The packages of an index with these names: a pocket has tens of thousands of others."""
    for stanza in text.split("\n\n"):
        first = stanza.partition("\n")[0]
        if first.startswith("Package:") and first[8:].strip() not in names:
            continue
        told = dict(re.findall(r"^(Package|Version|Architecture): *(\S+)", stanza, re.MULTILINE))
        if len(told) == 3:
            yield Fix(told["Package"], told["Architecture"], told["Version"])
