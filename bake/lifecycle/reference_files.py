"""Find the ids of AMIs in files: Terraform's, CloudFormation's, and any other.

Every file is read, whatever it is called, and searched for literal ids, byte by byte: a text in UTF-16 is
found, too. What an archive packs, or what a program puts together, is not.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bake.lifecycle.proof import Mention, Reference

LEFT_OUT = ".git"
LARGEST = 1 << 30  # bytes; a larger file is no definition of anything
CHUNK = 1 << 20
OVERLAP = 64  # more than an id in UTF-16
NAMED = 5  # files of a note
IDS = re.compile(rb"ami-[0-9a-f]{8,17}")
SHORT, LONG = len("ami-") + 8, len("ami-") + 17


@dataclass
class Searched:
    """What was found in files. `binary` are those that are no text.

    `unread` are those that could have named an AMI, `odd` those that could not, each with the reason.
    """

    mentions: list[Mention] = field(default_factory=list)
    binary: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be told, and keeps nothing."""
        told = []
        if self.binary:
            told.append(
                f"{_listed(self.binary)} no text: only ids that stand in them as they are were looked for"
            )
        told += [f"{path} was left out: {why}" for path, why in self.odd.items()]
        return tuple(told)

    @property
    def why_unread(self) -> str:
        """Why the search is not complete; empty if it is."""
        return "; ".join(f"{path}: {why}" for path, why in list(self.unread.items())[:NAMED]) + (
            f"; and {len(self.unread) - NAMED} more" if len(self.unread) > NAMED else ""
        )


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"{', '.join(paths[:NAMED])}{more} {'is' if len(paths) == 1 else 'are'}"


def search(places: Iterable[Path]) -> Searched:
    """Search files and folders, also behind links, each once; `.git` is left out."""
    found = Searched()
    seen: set[tuple[int, int]] = set()
    for place in places:
        for path in _files(place, seen, found):
            _search(path, found)
    return found


def _files(place: Path, seen: set[tuple[int, int]], found: Searched) -> Iterator[Path]:
    """The regular files at and below a place, without recursion: folders may be nested without end."""
    waiting = [place]
    while waiting:
        path = waiting.pop()
        try:
            facts = path.stat()
        except FileNotFoundError:
            found.odd[str(path)] = "it is a link to nothing" if path.is_symlink() else "it is gone"
            continue
        except OSError as error:  # also a link to itself
            found.unread[str(path)] = error.strerror or str(error)
            continue
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        if stat.S_ISDIR(facts.st_mode):
            waiting += reversed(_entries(path, found))
        elif not stat.S_ISREG(facts.st_mode):
            found.odd[str(path)] = "it is no file"
        elif facts.st_size > LARGEST:
            found.unread[str(path)] = f"it has {facts.st_size:,} bytes; up to {LARGEST:,} are read"
        else:
            yield path


def _entries(folder: Path, found: Searched) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name != LEFT_OUT)
    except OSError as error:
        found.unread[str(folder)] = error.strerror or str(error)
        return []


def _search(path: Path, found: Searched) -> None:
    """Note each id in a file once, with the line that has it first."""
    told: set[str] = set()
    try:
        for line, text in _chunks(path, found):
            for match in IDS.finditer(text):
                named = match[0].decode()
                before = text.count(b"\n", 0, match.start())
                where = f"{path}:{line + before}"
                for image in {named[:SHORT], named[:LONG]} - told:  # either length, to be on the safe side
                    told.add(image)
                    found.mentions.append((image, Reference("file", where)))
    except OSError as error:
        found.unread[str(path)] = error.strerror or str(error)


def _chunks(path: Path, found: Searched) -> Iterator[tuple[int, bytes]]:
    """The file piece by piece without null bytes, each with the number of its first line and an overlap."""
    kept, line, binary = b"", 1, False
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if not binary and b"\0" in chunk:
                binary = True
                found.binary.append(str(path))
            text = kept + chunk.replace(b"\0", b"")
            yield line, text
            kept = text[-OVERLAP:]
            line += text.count(b"\n") - kept.count(b"\n")
