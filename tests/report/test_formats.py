"""The formats that `bake report --format` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bake.commands import report as command
from bake.report import formats
from bake.report.model import Report
from tests.report.samples import FAILED, GOOD, HOSTILE

# Format -> what its text begins with.
BEGINS = {
    "html": "<!doctype html>",
    "md": "#",
    "json": "{",
    "junit": "<?xml",
    "hdf": "{",
    "sbom": "{",
}


def test_the_commands_choices_are_the_formats() -> None:
    assert set(command.FORMATS) == set(formats.FORMATS) == set(BEGINS)


@pytest.mark.parametrize("report", [GOOD, FAILED, HOSTILE], ids=["good", "failed", "hostile"])
@pytest.mark.parametrize("name", BEGINS)
def test_each_format_is_made_of_the_report_alone(name: str, report: Report, tmp_path: Path) -> None:
    """Also where the pictures are not at hand."""
    text = formats.render(report, name, tmp_path)
    assert text.lower().startswith(BEGINS[name])
    assert "REHEARSAL" in text
    if BEGINS[name] == "{":
        json.loads(text)


def test_the_pictures_that_are_there_are_handed_on(tmp_path: Path) -> None:
    assert formats.pictures(GOOD, tmp_path) == {}
    (tmp_path / GOOD.pictures[0].file).write_bytes(b"PNG")
    assert formats.pictures(GOOD, tmp_path) == {GOOD.pictures[0].file: b"PNG"}
