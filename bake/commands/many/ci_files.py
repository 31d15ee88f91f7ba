"""The files that tell a job on GitHub something: each bake has its own, and they are put together."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

OUTPUT, SUMMARY = "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"
ROOM = 1024 * 1024  # bytes of a step's summary; GitHub shows none that is larger
_STARTS = re.compile(r"(?P<name>[^=<]+)(?:=(?P<value>.*)|<<(?P<mark>.+))")


class CiFiles:
    """Lends each bake files, and appends what it wrote there to the job's own when it has ended.

    An output is called `PROFILE_NAME`, such as `g6e-ubuntu_digest`, for two bakes have outputs of one name.
    Whatever goes wrong with them costs no bake.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._targets = {name: Path(environment[name]) for name in (OUTPUT, SUMMARY) if environment.get(name)}
        self._folder: Path | None = None
        if self._targets:
            with suppress(OSError):
                self._folder = Path(tempfile.mkdtemp(prefix="bake-"))

    def of(self, profile: str) -> dict[str, str]:
        """The variables that name a bake's files; none where this is no job."""
        if self._folder is None:
            return dict.fromkeys(self._targets, "")
        return {name: str(self._file(profile, name)) for name in self._targets}

    def take(self, profile: str) -> None:
        """Append what a bake wrote to the job's files."""
        for name, target in self._targets.items():
            with suppress(OSError):
                content = self._file(profile, name).read_text(encoding="utf-8", errors="replace")
                text = renamed(content, profile) if name == OUTPUT else content
                _append(target, text, None if name == OUTPUT else ROOM)

    def close(self) -> None:
        """Remove the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, profile: str, name: str) -> Path:
        return (self._folder or Path(os.devnull)) / f"{profile}.{name}"


def _append(target: Path, text: str, room: int | None) -> None:
    content = text.encode()
    with target.open("ab") as file:
        if room is None or file.tell() + len(content) <= room:
            file.write(content)


def renamed(content: str, profile: str) -> str:
    """The outputs of a bake with its profile before their names; what is no output is left out."""
    lines = []
    for name, value in _outputs(content.splitlines()):
        mark = f"end-{secrets.token_hex(8)}"  # no value can hold it
        key = f"{profile}_{name}"
        lines.append(f"{key}<<{mark}\n{value}\n{mark}\n" if "\n" in value else f"{key}={value}\n")
    return "".join(lines)


def _outputs(lines: list[str]) -> Iterator[tuple[str, str]]:
    rest = iter(lines)
    for line in rest:
        if (start := _STARTS.fullmatch(line)) is None:
            continue
        if start["mark"] is None:
            yield start["name"], start["value"]
            continue
        value: list[str] = []
        for one in rest:
            if one == start["mark"]:
                yield start["name"], "\n".join(value)
                break
            value.append(one)
