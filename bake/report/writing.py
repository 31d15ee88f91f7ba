"""Write a run's report in all its formats. One that fails is named, and does not cost the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bake.redaction import redact
from bake.report.collect import collect
from bake.report.model import Report

SHOWN = "report.json"
"""What a person opens first."""
Format = Callable[[Report, Path], str]


def as_json(report: Report, directory: Path) -> str:
    """The report itself."""
    return report.model_dump_json(indent=1) + "\n"


FORMATS: Mapping[str, Format] = {
    "report.json": as_json,
}
"""File -> what makes it; in this order."""


def write(directory: Path, note: Callable[[str], None] = lambda text: None) -> Report:
    """Collect the report of a run and write it; `note` is told what could not be written.

    Raises UsageError if the directory is none of a run's.
    """
    report = collect(directory)
    for name, make in FORMATS.items():
        try:
            (directory / name).write_text(redact(make(report, directory)), encoding="utf-8")
        except OSError as error:
            note(f"{directory / name} could not be written: {error.strerror or error}")
        except Exception as error:  # a bug in one format must not cost the others
            note(f"{name} could not be made: {type(error).__name__}: {error}")
    return report
