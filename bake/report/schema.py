"""The JSON Schema of report.json, for programs that read it: `python -m bake.report.schema`."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from bake.report.model import SCHEMA, Report

FILE = "report.schema.json"
"""The schema as it is published, in this package."""


def schema() -> dict[str, Any]:
    """The schema, made of the models.

    Unlike them it allows unknown fields: `bake-report/1` stays its name when fields are added, so a program
    that holds an older schema against a newer report must not fail.
    """
    made = Report.model_json_schema()
    _open(made)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ami-bake:{SCHEMA}",
        **made,
        "title": "The report of a run of ami-bake",
    }


def as_text() -> str:
    """The schema as it is kept in report.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


def published() -> dict[str, Any]:
    """The schema that came with this package."""
    text = resources.files("bake.report").joinpath(FILE).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _open(part: Any) -> None:
    """Remove `additionalProperties: false` everywhere below."""
    if isinstance(part, dict):
        if part.get("additionalProperties") is False:
            del part["additionalProperties"]
        for value in part.values():
            _open(value)
    elif isinstance(part, list):
        for value in part:
            _open(value)


if __name__ == "__main__":
    print(as_text(), end="")
