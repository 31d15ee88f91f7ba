"""The formats of a report are written together, and none costs the others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bake.report import writing
from bake.report.model import Report
from tests.report import samples
from tests.report.run_folders import IDENTITY, NAME, Folder, whole


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / NAME)


def test_all_formats_are_written_and_summed(folder: Folder, tmp_path: Path) -> None:
    notes: list[str] = []
    report = writing.write(whole(folder).path, notes.append)
    assert notes == []
    assert Report.model_validate_json((folder.path / "report.json").read_bytes()) == report
    listed = {line[66:] for line in (folder.path / "SHA256SUMS").read_text().splitlines()}
    assert {*writing.FILES, "facts/image.json", "first-image.png"} <= listed
    again = tmp_path / "moved" / NAME
    shutil.copytree(folder.path, again)
    assert writing.write(again) == report  # nothing but the files counts


def test_a_format_that_fails_does_not_cost_the_others(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(report: Report, form: str, directory: Path) -> str:
        if form == "html":
            raise KeyError("x")
        return form

    (whole(folder).path / "report.html").write_text("of an earlier report")
    monkeypatch.setattr(writing, "render", broken)
    notes: list[str] = []
    writing.write(folder.path, notes.append)
    assert notes == ["report.html could not be made: KeyError: 'x'"]
    assert not (folder.path / "report.html").exists()
    assert (folder.path / "report.md").read_text() == "md"


def test_a_full_disk_is_told_and_fails_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(folder)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    notes: list[str] = []
    assert writing.write(folder.path, notes.append).verdict.state == "good"
    assert len(notes) == len(writing.FILES) + 1
    assert all("No space left on device" in note for note in notes)


def test_hostile_texts_stay_texts(folder: Folder) -> None:
    evil = "</script><script>alert(1)</script>\x00\x1b[31m\u202e"
    check = samples.check(title=evil, outcome="failed", reason=evil).model_dump(mode="json")
    whole(folder).put(facts__checks_sealed_verify=[check], facts__identity={**IDENTITY, "operator": evil})
    (folder.path / "logs/evil.log").write_text(evil)
    notes: list[str] = []
    report = writing.write(folder.path, notes.append)
    assert notes == []
    assert report.run.operator == evil
    assert "<script>alert(1)" not in (folder.path / "report.html").read_text()
