"""Evaluate a disk's udev rules (udev(7)) for its read-ahead, since no udev runs in machines.

Supported are the match keys below, GOTO and LABEL. A rule with any other match (PROGRAM, IMPORT, TEST, …)
counts as not matching.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bake.localcloud.machines import rooted_files

# By ascending priority; a file replaces one of the same name in an earlier folder.
_FOLDERS = ("usr/lib/udev/rules.d", "etc/udev/rules.d")
_TERM = re.compile(
    r'\s*([A-Z_]+)(?:\{([^}]*)\})?\s*(==|!=|=|\+=|-=|:=)\s*(?:[ie])?"((?:[^"\\]|\\.)*)"\s*(?:,|$)?'
)
_READ_AHEAD = {"queue/read_ahead_kb", "bdi/read_ahead_kb"}

EBS_DISK: Mapping[tuple[str, str], str] = {
    ("ACTION", ""): "add",
    ("SUBSYSTEM", ""): "block",
    ("SUBSYSTEMS", ""): "block",
    ("KERNEL", ""): "nvme0n1",
    ("ENV", "DEVTYPE"): "disk",
    ("ATTRS", "model"): "Amazon Elastic Block Store",
}
"""udev's properties of the root disk of a current instance type; ATTRS include the parents'."""


@dataclass(frozen=True)
class _Term:
    key: str
    attribute: str
    operator: str
    value: str


def read_ahead(root: Path, device: Mapping[tuple[str, str], str]) -> int | None:
    """The read-ahead in KiB that the last matching rule below `root` sets; None if none matches."""
    found = None
    for text in _files(root).values():
        for term in _assigned(text, device):
            if term.key == "ATTR" and term.attribute in _READ_AHEAD:
                with suppress(ValueError):  # the kernel would refuse it as well
                    found = int(term.value)
    return found


def names_as_mapped(root: Path) -> bool:
    """Whether rules below `root` name an EBS disk as it is mapped (/dev/sdf), by asking the disk.

    Amazon Linux has such rules (ec2-utils); their PROGRAM needs the real disk, so that only the rule is seen.
    """
    return any("ebsnvme-id" in text for text in _files(root).values())


def _files(root: Path) -> dict[str, str]:
    """The rules' files by name, in their order."""
    found: dict[str, str] = {}
    for folder in _FOLDERS:
        with suppress(OSError):
            where = rooted_files.look(root, folder, os.O_DIRECTORY)
            try:
                names = [file.name for file in Path(f"/proc/self/fd/{where}").glob("*.rules")]
            finally:
                os.close(where)
            found |= {name: _read(root, f"{folder}/{name}") for name in names}
    return dict(sorted(found.items()))


def _read(root: Path, path: str) -> str:
    """A file's text; empty if it is a link out of the disk, a device or unreadable."""
    with suppress(OSError):
        file = rooted_files.look(root, path)
        try:
            place = Path(f"/proc/self/fd/{file}")
            return place.read_text("utf-8", "replace") if place.is_file() else ""
        finally:
            os.close(file)
    return ""


def _assigned(text: str, device: Mapping[tuple[str, str], str]) -> Iterator[_Term]:
    """The assignments of the rules that match the device, in order."""
    skip_to = None
    for line in _lines(text):
        terms = _terms(line)
        labels = {term.value for term in terms if term.key == "LABEL"}
        if skip_to is not None and skip_to not in labels:
            continue
        skip_to = None
        if all(_matches(term, device) for term in terms if term.operator in {"==", "!="}):
            yield from (term for term in terms if term.operator in {"=", ":="})
            skip_to = next((term.value for term in terms if term.key == "GOTO"), None)


def _lines(text: str) -> Iterator[str]:
    """The rules, one per line, without comments."""
    joined = re.sub(r"\\\n", "", text)
    return (line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _terms(line: str) -> list[_Term]:
    """A rule's terms; for a malformed rule, which udev ignores, one term that never matches."""
    terms, place = [], 0
    while place < len(line.rstrip()):
        match = _TERM.match(line, place)
        if match is None:
            return [_Term("malformed", "", "==", "")]
        terms.append(_Term(match[1], match[2] or "", match[3], match[4]))
        place = match.end()
    return terms


def _matches(term: _Term, device: Mapping[tuple[str, str], str]) -> bool:
    value = device.get((term.key, term.attribute))
    if value is None:
        return False
    same = any(fnmatch.fnmatchcase(value, pattern) for pattern in term.value.split("|"))
    return same == (term.operator == "==")
