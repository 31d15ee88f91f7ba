"""Hold what a worker writes against the schemas that its readers have."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).parents[2] / "worker"
OF_EVENT = {"FluxImageReady": "image-ready", "FluxImageFailed": "image-failed"}


def kept(name: str) -> Any:
    """The schema in worker/NAME.schema.json."""
    return json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))


def strict(schema: Any) -> Any:
    """A schema that also refuses what it does not name, which readers must not do."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "properties" in schema and "type" in schema else {}
    return {key: strict(value) for key, value in schema.items()} | closed


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Validates what is written, strictly, with its dates."""
    dated = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(strict(kept(name)), format_checker=dated)


def assert_written(name: str, content: Any) -> None:
    """Fail unless the content has what the schema names, and nothing else."""
    errors = [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(content)]
    assert errors == [], content


def assert_event(event: Any) -> None:
    """The same for an event, by its detail-type; those of no job are let through."""
    if name := OF_EVENT.get(event["detail-type"]):
        assert_written(name, {"account": "123456789012"} | event)  # which moto leaves out


def of_key(key: str) -> str | None:
    """Which schema an object has, by its key: None for images and claims."""
    if key.endswith("=failed.json"):
        return "stored-failure"
    return "record" if key.endswith(".json") else None
