"""The published JSON Schema of report.json: up to date, and what reports follow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bake.report import schema
from bake.report.model import Report
from tests.report import samples

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(
    schema.published(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)
REPORTS = {"good": samples.GOOD, "failed": samples.FAILED, "hostile": samples.HOSTILE}


def written(report: Report) -> Any:
    """A report as a program reads it from report.json."""
    return json.loads(report.model_dump_json())


def test_the_checked_in_schema_is_that_of_the_models() -> None:
    regenerate = "python -m bake.report.schema > bake/report/report.schema.json"
    assert (ROOT / "bake/report/report.schema.json").read_text() == schema.as_text(), regenerate


@pytest.mark.integration
def test_the_module_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bake.report.schema"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == schema.as_text()


def test_it_is_a_schema_and_says_which() -> None:
    found = schema.schema()
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert found["$id"] == "urn:ami-bake:bake-report/1"
    assert found["properties"]["report"]["const"] == "bake-report/1"


@pytest.mark.parametrize("name", REPORTS)
def test_reports_follow_it(name: str) -> None:
    report = REPORTS[name]
    VALIDATOR.validate(written(report))
    assert Report.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("venue", "name"), "Rehearsal", id="a word of our own"),
        pytest.param(("checks", 0, "outcome"), "green", id="an outcome"),
        pytest.param(("checks", 0, "about", "requirements"), None, id="null for a list"),
        pytest.param(("waivers", 0, "until"), "tomorrow", id="a day"),
        pytest.param(("run",), {}, id="required fields"),
        pytest.param(("report",), "bake-report/2", id="another version"),
    ],
)
def test_what_does_not_follow_it_is_refused(path: tuple[str | int, ...], value: object) -> None:
    found = written(samples.GOOD)
    part = found
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert list(VALIDATOR.iter_errors(found))


def test_a_newer_report_with_more_fields_follows_it() -> None:
    found = written(samples.GOOD)
    found["checks"][0]["about"]["colour"] = found["new"] = "blue"
    VALIDATOR.validate(found)


def test_fields_are_described() -> None:
    about = schema.schema()["$defs"]["About"]
    assert about["properties"]["rationale"]["description"] == "Why it matters."
