"""The JSON Schema of profiles, by which editors complete and check them while they are written."""

from __future__ import annotations

import json
from typing import Any

from bake.profile import fields
from bake.profile.schema import Profile, sections

# Allowed in place of any value: the value is known only when the variables are.
REFERENCE = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}$]*)?\}|^secretsmanager:[^#\s]+#[^#\s]+$",
    "description": "${NAME}, ${NAME:-default} or secretsmanager:NAME#KEY",
}
EXTENDS = {
    "type": "string",
    "pattern": r"^\w[\w.-]*$",
    "description": "Another profile of this directory; its values hold where this file says nothing.",
}


def as_text() -> str:
    """The schema as it is kept in profiles/schema.json."""
    return json.dumps(build(), indent=2) + "\n"


def build() -> dict[str, Any]:
    """The schema: the models, and what profiles may hold besides (`extends`, `${NAME}`).

    A profile that extends another may leave out what that one says.
    """
    found = Profile.model_json_schema()
    definitions = {model.__name__: found["$defs"][model.__name__] for model in sections().values()}
    needed = {
        name: {"required": definitions[model.__name__].pop("required", [])}
        for name, model in sections().items()
    }
    needed = {name: what for name, what in needed.items() if what["required"]}
    definitions |= {model.__name__: found["$defs"][model.__name__] for model in fields.entries().values()}
    for definition in definitions.values():
        definition.pop("title")
        definition["properties"] = {key: _field(value) for key, value in definition["properties"].items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A profile of ami-bake",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "extends": EXTENDS,
            **{name: found["properties"][name] for name in sections()},
            **{name: _field(found["properties"][name]) for name in fields.top_level()},
        },
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": list(needed), "properties": needed},
        "$defs": definitions,
    }


def _field(schema: dict[str, Any]) -> dict[str, Any]:
    """One field: its own values or a reference; only a reference if the value must not be in a file."""
    variable, literals = schema.pop("variable", None), schema.pop("literals", [])
    bound = variable is not None and not schema.pop("literal", False)
    outer: dict[str, Any] = {key: schema[key] for key in ("default", "description") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in (*outer, "title")}
    if "patternProperties" in inner:
        return {**outer, **_named(inner)}
    kinds = inner.pop("anyOf", None) or [inner]
    if any(kind.get("type") == "array" for kind in kinds):
        return {**outer, "anyOf": [_entries(kind, bound) for kind in kinds]}
    if bound:
        kinds = [kind for kind in kinds if kind == {"type": "null"}]
    if literals:
        kinds = [{"enum": literals}, *kinds]
    if variable is not None:
        outer["examples"] = [f"${{{variable}}}"]
    return {**outer, "anyOf": [*kinds, REFERENCE]}


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    """A mapping whose keys the user chooses; null drops an entry that an extended profile has."""
    named = {
        pattern: {"anyOf": [one, {"type": "null"}]} for pattern, one in schema["patternProperties"].items()
    }
    return {**schema, "patternProperties": named, "additionalProperties": False}


def _entries(kind: dict[str, Any], bound: bool) -> dict[str, Any]:
    """A list, whose entries may be references unless they are mappings."""
    if kind.get("type") != "array" or "$ref" in kind["items"]:
        return kind
    return {**kind, "items": REFERENCE if bound else {"anyOf": [kind["items"], REFERENCE]}}
