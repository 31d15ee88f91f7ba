"""Write a run's report in all its formats. One that fails is named, and does not cost the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bake.redaction import redact
from bake.report.collect import collect
from bake.report.formats import PAGE, render
from bake.report.model import Report
from bake.report.sums import NAME as SUMS
from bake.report.sums import sums

FILES: Mapping[str, str] = {
    "report.json": "json",
    PAGE: "html",
    "report.md": "md",
    "junit.xml": "junit",
    "hdf.json": "hdf",
    "sbom.cdx.json": "sbom",
}
"""File -> the format that it has (`formats`)."""


def write(directory: Path, note: Callable[[str], None] = lambda text: None) -> Report:
    """Collect the report of a run and write it, the sums of all files last; `note` is told what failed.

    Raises UsageError if the directory is none of a run's.
    """
    report = collect(directory)
    for name, form in FILES.items():
        _write(directory / name, lambda form=form: redact(render(report, form, directory)), note)  # type: ignore[misc]
    write_sums(directory, note)
    return report


def write_sums(directory: Path, note: Callable[[str], None] = lambda text: None) -> None:
    """Write the sums of all files of a run directory."""
    _write(directory / SUMS, lambda: sums(directory), note)


def _write(file: Path, make: Callable[[], str], note: Callable[[str], None]) -> None:
    """Write a file, or leave none: what is there of an earlier report is about another one."""
    try:
        file.write_text(make(), encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        note(f"{file} could not be written: {error.strerror or error}")
    except Exception as error:  # a bug in one format must not cost the others
        note(f"{file.name} could not be made: {type(error).__name__}: {error}")
    else:
        return
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return
