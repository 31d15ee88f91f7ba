"""Reports that are kept in run directories: read one, and find the one of an AMI."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.report.model import Report

REPORT = "report.json"
# How a report names its image, which stands before everything that a machine answered.
IMAGE = re.compile(rb'"image": *\{\s*"id": *"(ami-[0-9a-f]+)"')
HEAD = 1 << 18  # bytes


def read(file: Path) -> Report:
    """Read a report.json, or the one of a run directory. Raises UsageError where there is none."""
    file = file / REPORT if file.is_dir() else file
    try:
        return parse(file.read_bytes(), file)
    except OSError as error:
        raise UsageError(f"there is no report {file}: {error.strerror}") from error


def parse(content: bytes, source: object) -> Report:
    """A report from its text. Raises UsageError, naming `source`, where that is none of this version.

    Fields that this version does not know are left out: a newer one may have more (`SCHEMA`).
    """
    from pydantic import ValidationError

    from bake.report.model import Report

    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        if unknown := [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]:
            return parse(_without(content, unknown), source)
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the text"
        raise UsageError(
            f"{source} is no report that this version of bake reads: {where}: {first['msg']}",
            hint="the version of bake that wrote it is its run.bake_version",
        ) from error


def _without(content: bytes, places: Iterable[tuple[int | str, ...]]) -> bytes:
    """The text without the fields at these places."""
    found = json.loads(content)
    for *way, last in places:
        part = found
        for name in way:
            part = part[name]
        del part[last]
    return json.dumps(found).encode()


def directories(runs: Path) -> list[Path]:
    """The run directories, newest first: their names sort by time."""
    return sorted((one for one in runs.glob("*/") if one.is_dir()), reverse=True) if runs.is_dir() else []


def by_image(runs: Path) -> dict[str, list[Path]]:
    """AMI -> the run directories whose reports are about it, newest first: its bake and boot checks."""
    found: dict[str, list[Path]] = {}
    for directory in directories(runs):
        try:
            with (directory / REPORT).open("rb") as file:
                named = IMAGE.search(file.read(HEAD))
        except OSError:
            continue
        if named:
            found.setdefault(named[1].decode(), []).append(directory)
    return found
