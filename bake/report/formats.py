"""The formats of a report, by the names of `bake report --format`; each is made of report.json."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bake.report.model import Report

# Format -> the module that makes it, with its function. Imported when asked for: they need large libraries.
MAKERS = {
    "html": ("bake.report.html", "html"),
    "md": ("bake.report.markdown", "markdown"),
    "junit": ("bake.report.junit", "junit"),
    "hdf": ("bake.report.hdf", "hdf"),
    "sbom": ("bake.report.sbom", "sbom"),
}
FORMATS = (*MAKERS, "json")
PAGE = "report.html"


def render(report: Report, name: str, directory: Path) -> str:
    """The report in that format. `directory` has its pictures; one that is missing is told on the page."""
    if name == "json":
        return f"{report.model_dump_json(indent=2)}\n"
    module, function = MAKERS[name]
    make: Any = getattr(import_module(module), function)
    text: str = make(report, pictures(report, directory)) if name == "html" else make(report)
    return text


def pictures(report: Report, directory: Path) -> Mapping[str, bytes]:
    """File name -> content, of the pictures that are there."""
    files = {picture.file: directory / picture.file for picture in report.pictures}
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()}
