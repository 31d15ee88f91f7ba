"""Read the advisories of an rpm repository (updateinfo): which versions fix something.

Each file is held against the hashes of the repository's repomd.xml. That file is fetched over HTTPS, and its
signature is not verified here: what a bake installs is verified by dnf on the builder.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError

from bake.checks.inventory import Source
from bake.updates.installed import Fix, Installed
from bake.updates.web import Unreachable, Web, below, opened

SMALL = 16 << 20  # bytes: a list of mirrors, repomd.xml
LARGE = 256 << 20  # bytes, compressed: advisories, and the list of packages
MIRRORS = 3  # that are tried


def fixes(source: Source, installed: Installed, web: Web) -> Iterator[Fix]:
    """What is newer by an advisory for security, and is in the repository.

    Advisories outlive packages, and what is not there can't be installed.
    """
    base, repomd = _repository(source, web)
    told = [fix for fix in _advisories(base, repomd, web) if installed.of_fix(fix) is not None]
    there = _available(base, repomd, web) if told else set()
    yield from (fix for fix in told if (fix.package, fix.arch, fix.version) in there)


def _repository(source: Source, web: Web) -> tuple[str, Element]:
    """The repository's URL and its repomd.xml, from the first mirror that answers."""
    failed: Unreachable | None = None
    for base in _mirrors(source, web):
        try:
            return base, _parsed(web.get(below(base, "repodata/repomd.xml"), SMALL), f"repomd.xml of {base}")
        except Unreachable as error:
            failed = error
    raise failed or Unreachable(f"{source.url} names no mirror")


def _mirrors(source: Source, web: Web) -> list[str]:
    if source.kind == "baseurl":
        return [source.url]
    lines = web.get(source.url, SMALL).decode(errors="replace").split()
    return [line for line in lines if re.match(r"https?://", line)][:MIRRORS]


def _data(base: str, repomd: Element, kind: str, web: Web) -> Element | None:
    """A file of the repository's metadata, parsed; None where it has none of the kind."""
    for data in repomd.iterfind("{*}data"):
        location, checksum = data.find("{*}location"), data.find("{*}checksum")
        if data.get("type") != kind or location is None or checksum is None:
            continue
        name, size = location.get("href", ""), data.findtext("{*}size", "")
        if checksum.get("type") != "sha256":
            raise Unreachable(f"{name} of {base} has no sha256")
        content = web.verified(
            below(base, name), (checksum.text or "").strip(), int(size) if size.isdigit() else None, LARGE
        )
        return _parsed(opened(name, content), f"{name} of {base}")
    return None


def _advisories(base: str, repomd: Element, web: Web) -> Iterator[Fix]:
    updates = _data(base, repomd, "updateinfo", web)
    if updates is None:
        raise Unreachable(f"{base} has no advisories (updateinfo)")
    for update in updates.iterfind("update"):
        if update.get("type") == "security":
            advisory = update.findtext("id", "")
            for package in update.iterfind("pkglist/collection/package"):
                yield Fix(package.get("name", ""), package.get("arch", ""), _version(package), advisory)


def _available(base: str, repomd: Element, web: Web) -> set[tuple[str, str, str]]:
    """Name, architecture and version of all packages that the repository has."""
    primary = _data(base, repomd, "primary", web)
    found = set()
    for package in () if primary is None else primary.iterfind("{*}package"):
        version = package.find("{*}version")
        if version is not None:
            name, arch = package.findtext("{*}name", ""), package.findtext("{*}arch", "")
            found.add((name, arch, _version(version)))
    return found


def _version(told: Element) -> str:
    """EPOCH:VERSION-RELEASE, of attributes; without an epoch of 0, as rpm shows it."""
    epoch = told.get("epoch") or "0"
    version = f"{told.get('version', told.get('ver', ''))}-{told.get('release', told.get('rel', ''))}"
    return version if epoch == "0" else f"{epoch}:{version}"


def _parsed(content: bytes, what: str) -> Element:
    """An XML document without entities of its own, which could be made to grow without end."""
    if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
        raise Unreachable(f"{what} has a DOCTYPE, which no repository's has")
    try:
        return ElementTree.parse(io.BytesIO(content)).getroot()  # noqa: S314
    except ParseError as error:
        raise Unreachable(f"{what} is no XML: {error}") from error
