"""The input, typed: `weights.json` and the document on stdin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefetch.failures import Refused
from prefetch.redaction import conceal

GIB = 1 << 30


@dataclass(frozen=True)
class File:
    """One file of the repository; a large one has a sha256, a small one its git blob id."""

    path: str
    bytes: int
    sha256: str | None = None
    git_oid: str | None = None

    @property
    def etag(self) -> str:
        """The etag of this content at the Hub and in its cache."""
        return self.sha256 or self.git_oid or ""

    def hasher(self) -> Any:
        """A hash, initialized for this file, whose hex digest is the etag."""
        if self.sha256:
            return hashlib.sha256()
        # git hashes a header and the content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        return hashlib.sha1(b"blob %d\0" % self.bytes, usedforsecurity=False)


@dataclass(frozen=True)
class Wanted:
    """The files of one revision, and where they shall lie. `reserve` bytes are for others on its disk.

    With `scratch` they must lie on an instance store, and are no part of an image.
    """

    repo: str
    revision: str
    cache: Path
    files: Mapping[str, File]
    volume: str | None
    stand_in: str | None
    reserve: int = GIB
    scratch: bool = False

    @classmethod
    def load(cls, path: Path) -> Wanted:
        """Read weights.json; raises ValueError for a path that would leave the snapshot."""
        given = json.loads(path.read_text(encoding="utf-8"))
        files = {
            name: File(name, entry["bytes"], entry.get("sha256"), entry.get("git_oid"))
            for name, entry in given["files"].items()
        }
        for file in files.values():
            if file.path.startswith("/") or ".." in file.path.split("/") or not file.etag.isalnum():
                raise ValueError(f"{path}: {file.path!r} can't be a file of a repository")
        return cls(
            repo=given["repo"],
            revision=given["revision"],
            cache=Path(given["cache"]),
            files=files,
            volume=given["volume"]["id"],
            stand_in=given["volume"]["stand_in"],
            reserve=given.get("reserve", GIB),
            scratch=given["volume"].get("scratch", False),
        )

    @property
    def contents(self) -> list[File]:
        """Each content once, largest first, so that the longest transfer does not start last."""
        once = {file.etag: file for file in self.files.values()}
        return sorted(once.values(), key=lambda file: -file.bytes)


@dataclass(frozen=True)
class Secrets:
    """What came by stdin and stays in memory."""

    token: str = field(repr=False)
    mirror: Mapping[str, Any] | None = field(repr=False)

    @classmethod
    def load(cls, text: str) -> Secrets:
        """Read the document on stdin; raises ValueError where it is none.

        What is in it is concealed from here on.
        """
        given = json.loads(text)
        token = given["token"] or ""
        if not isinstance(token, str):
            raise ValueError("the token on stdin is no text")
        conceal(token)
        return cls(token, given.get("mirror"))

    def refuse_malformed(self) -> None:
        """Raise Refused for a token that no header takes, before anything is asked for."""
        if found := fault(self.token):
            raise Refused(
                "token-malformed",
                f"weights.token {found}",
                "set the token anew, with nothing before or after it, then bake again",
            )


def fault(token: str) -> str | None:
    """The kind of character that can't stand in a header, never the character of a secret itself."""
    where = "inside" if token == token.strip() else "before or after it"
    for kind, letters in (
        ("a line break", "\r\n"),
        ("a blank", " \t"),
    ):
        if any(letter in token for letter in letters):
            return f"has {kind} {where}"
    if not token.isascii():
        return "has a character outside ASCII"
    return None if token.isprintable() else "has a control character"
