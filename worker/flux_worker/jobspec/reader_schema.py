"""The JSON Schemas of what the worker writes, for those who read it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ANYTHING = {"$ref": "#/$defs/JsonValue"}
_LIMITS = {"minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern", "not", "default"}
_MORE = "Readers must accept fields that this schema does not name: later versions may add some."


class Untitled(GenerateJsonSchema):
    """Gives titles to models only: code generators make a type of its own for each field that has a title."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never, since pydantic's title would be the field's name with a capital letter."""
        return False


def as_text(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2) + "\n"


def of_written(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of what the worker writes by this model.

    It names fields and types. It has none of a job's limits, which a later version may widen, and forbids no
    fields.
    """
    written = model.model_json_schema(mode="serialization", schema_generator=Untitled)
    written.get("$defs", {}).pop("JsonValue", None)
    schema: dict[str, Any] = _readable(written)
    return {"$schema": DIALECT} | schema | {"description": f"{schema['description']} {_MORE}"}


def _readable(part: Any) -> Any:
    """A part of a schema without what only a writer must keep."""
    if isinstance(part, list):
        return [_readable(one) for one in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _readable(value) for key, value in part.items() if key not in _LIMITS}
    if kept.get("additionalProperties") in (False, _ANYTHING):
        del kept["additionalProperties"]
    return kept
