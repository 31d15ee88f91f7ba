"""Rules of a job that pydantic does not write into the JSON Schema.

Patterns use only what all regular expression engines share: no look-around (Go and Rust have none), no `\\s`
(it differs), and no `$` at the end, since Python's also matches before a final line break.
"""

from __future__ import annotations

import sys
from typing import Any

from .reader_schema import DIALECT

MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""
MAX_METADATA_DEPTH = 8

BLANKS = "\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""The characters for which `str.isspace` is true, as ranges of a character class."""
NO_PREFIX = r"[^A-Za-z0-9!_.*'()/-]|(^|/)\.?\.?/"
"""What an `s3_prefix` must not contain: other characters, and parts that are empty, `.` or `..`."""

ID: dict[str, Any] = {"maxLength": 128, "not": {"pattern": "[^A-Za-z0-9._-]"}}
PROMPT: dict[str, Any] = {"pattern": rf"^[{BLANKS}]*[^\x00{BLANKS}]", "not": {"pattern": r"\x00"}}
PREFIX: dict[str, Any] = {"pattern": "^$|/$", "not": {"pattern": NO_PREFIX}}

_UNSAID = (
    "A schema cannot say, and the worker also refuses: a message of more than 256 KiB; metadata of more than "
    "4 KiB as JSON; in metadata, a whole number beyond 2^53 - 1 that is written in digits alone; a lone "
    "surrogate in any text; a name that stands twice in an object; a prompt of more tokens than "
    "max_sequence_length; a size for which no model is compiled (Neuron)."
)


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """Add dependencies between fields, metadata's depth, and a note on what a schema cannot express."""
    head = {"$schema": DIALECT}
    description = f"{schema['description']} {_UNSAID}"
    schema["properties"]["metadata"]["additionalProperties"] = _within(MAX_METADATA_DEPTH - 1)
    return head | schema | {"$defs": _nested(), "description": description, "allOf": _together()}


def _together() -> list[dict[str, Any]]:
    """No quality for png, and no seed that is too large for the last image."""
    png = {"properties": {"format": {"const": "png"}}}  # also where it is absent
    rules: list[dict[str, Any]] = [{"if": png, "then": {"properties": {"quality": {"type": "null"}}}}]
    for images in (2, 3, 4):
        several = {"properties": {"images": {"const": images}}, "required": ["images"]}
        largest = {"properties": {"seed": {"maximum": MAX_INTEGER - images + 1}}}
        rules.append({"if": several, "then": largest})
    return rules


def _nested() -> dict[str, Any]:
    """`within0` is a plain value, `within1` may be a list or an object of these, and so on."""
    largest = sys.float_info.max
    plain = {"type": ["null", "boolean", "number", "string"], "minimum": -largest, "maximum": largest}
    found: dict[str, Any] = {"within0": plain}
    for depth in range(1, MAX_METADATA_DEPTH):
        inner = _within(depth - 1)
        types = [*plain["type"], "array", "object"]  # type: ignore[misc]
        found[f"within{depth}"] = plain | {"type": types, "items": inner, "additionalProperties": inner}
    return found


def _within(depth: int) -> dict[str, Any]:
    return {"$ref": f"#/$defs/within{depth}"}
