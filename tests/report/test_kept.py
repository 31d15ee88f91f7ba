"""Reports in run directories."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bake.errors import UsageError
from bake.report.kept import REPORT, by_image, directories, read
from bake.report.model import Report
from tests.report.samples import FAILED, GOOD

IMAGE = "ami-0c0ffee0c0ffee001"


def keep(runs: Path, name: str, report: Report) -> Path:
    directory = runs / name
    directory.mkdir(parents=True)
    (directory / REPORT).write_text(report.model_dump_json())
    return directory


def test_a_report_is_read_from_its_directory_or_its_file(tmp_path: Path) -> None:
    directory = keep(tmp_path, "1", GOOD)
    assert read(directory) == read(directory / REPORT) == GOOD


def test_what_is_no_report_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no report .*report\.json: No such file"):
        read(tmp_path)
    file = tmp_path / REPORT
    file.write_text("{}")
    with pytest.raises(UsageError, match=r"report\.json is no report .*: venue: Field required"):
        read(file)
    file.write_text("PNG")
    with pytest.raises(UsageError, match="Invalid JSON"):
        read(file)
    file.write_text(json.dumps({**json.loads(GOOD.model_dump_json()), "report": "bake-report/2"}))
    with pytest.raises(UsageError, match="bake-report/1"):
        read(file)


def test_a_newer_report_may_have_more_fields(tmp_path: Path) -> None:
    newer = json.loads(GOOD.model_dump_json())
    newer["mood"] = "fine"
    newer["image"]["volumes"][0]["iops"] = 3000
    newer["checks"][1]["about"]["author"] = {"name": "somebody"}
    file = tmp_path / REPORT
    file.write_text(json.dumps(newer))
    assert read(file) == GOOD
    newer["verdict"]["state"] = "splendid"
    file.write_text(json.dumps(newer))
    with pytest.raises(UsageError, match=r"verdict\.state"):
        read(file)


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    for name in ("20261128-1", "20261129-1", "20251231-9"):
        (tmp_path / name).mkdir()
    (tmp_path / "20261201-1").write_text("a file")
    assert [one.name for one in directories(tmp_path)] == ["20261129-1", "20261128-1", "20251231-9"]
    assert directories(tmp_path / "nowhere") == []


def test_the_reports_of_an_image_are_found_among_others(tmp_path: Path) -> None:
    keep(tmp_path, "1", GOOD)
    keep(tmp_path, "3", FAILED)  # names the image, but is not about it
    later = GOOD.model_copy(update={"run": GOOD.run.model_copy(update={"id": "2"})})
    keep(tmp_path, "2", later)
    (keep(tmp_path, "4", GOOD) / REPORT).write_text(f"not JSON, with {IMAGE}")
    (tmp_path / "5").mkdir()
    indented = keep(tmp_path, "6", GOOD)
    (indented / REPORT).write_text(GOOD.model_dump_json(indent=2))
    assert by_image(tmp_path) == {IMAGE: [tmp_path / name for name in "621"]}
