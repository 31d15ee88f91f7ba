"""The SHA256SUMS of a run directory, by which anybody can see later that no file of it has changed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

NAME = "SHA256SUMS"
LEFT_OUT = frozenset({NAME, "lock", "resume.jsonl"})
"""Files of the run directory itself that change after the report, or that hold the sums."""


def sums(directory: Path) -> str:
    r"""The SHA-256 of every regular file of a directory, as `sha256sum` prints and checks them; by name.

    A name with a newline or a backslash is escaped as coreutils escapes it, with a backslash before the hash.
    One that is not UTF-8 comes with surrogates: write the text with `errors="surrogateescape"`.
    Links are not followed, and have no sum of their own.
    """
    found = sorted((file.relative_to(directory).as_posix(), file) for file in _files(directory))
    return "".join(_line(name, _digest(file)) for name, file in found if name not in LEFT_OUT)


def _files(directory: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(directory):
        for name in names:
            file = Path(folder, name)
            if stat.S_ISREG(file.lstat().st_mode):
                yield file


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _line(name: str, digest: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{chr(92) if escaped != name else ''}{digest}  {escaped}\n"
