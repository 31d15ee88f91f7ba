"""The words of `builder.proxy_command`: how they are written, and how they are filled in for one machine."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from bake import redaction

PLACEHOLDERS = ("{instance}", "{host}", "{port}")
_PART = re.compile(r"\{\{|\}\}|\{[^{}]*\}?|\}")
_BRACES = {"{{": "{", "}}": "}"}
_MOST = 64  # words


def _checked(word: str) -> str:
    for placeholder in placeholders(word):
        if placeholder not in PLACEHOLDERS:
            raise ValueError(f"unknown placeholder {placeholder}; {_known(placeholder)}")
    if bad := next((letter for letter in word if not letter.isprintable()), None):
        raise ValueError(f"has the character U+{ord(bad):04X}, which no command needs")
    if redaction.redact(word) != word:
        raise ValueError("must not hold a secret: everybody on this machine sees a command's arguments")
    return word


def _known(placeholder: str) -> str:
    close = difflib.get_close_matches(placeholder.lower(), PLACEHOLDERS, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(PLACEHOLDERS)}; a brace that stands for itself is written twice"


def _split(value: Any) -> Any:
    """Split a text as a shell splits it, and check it as a whole: its words have no places of their own."""
    if not isinstance(value, str):
        return value
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"is no command: {str(error).lower()}") from None
    return [_checked(word) for word in words]


def _leads(words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a command that leads to one place whatever the machine is, and one without a program."""
    if not words[0] or any(placeholders(words[0])):
        raise ValueError("must begin with a program")
    named = {placeholder for word in words for placeholder in placeholders(word)}
    if named.isdisjoint(("{instance}", "{host}")):
        instead = "; write {host} and {port} for ssh's %h and %p" if "%h" in " ".join(words) else ""
        raise ValueError(f"has neither {{instance}} nor {{host}}: it would not lead to the builder{instead}")
    return words


Word = Annotated[str, Field(max_length=1000), AfterValidator(_checked)]
ProxyCommand = Annotated[
    tuple[Word, ...],
    Field(min_length=1, max_length=_MOST),
    AfterValidator(_leads),
    BeforeValidator(_split),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": _MOST},
                {"type": "string"},
            ]
        }
    ),
]
"""A command: a list of words, or a text that is split as a shell splits it. No shell runs it."""


def placeholders(word: str) -> Iterator[str]:
    """The placeholders in a word, with their braces; `{{` and `}}` are none."""
    yield from (found for found in _PART.findall(word) if found not in _BRACES)


def filled(words: Sequence[str], *, instance: str, host: str, port: int) -> tuple[str, ...]:
    """The command for one machine."""
    values = {**_BRACES, "{instance}": instance, "{host}": host, "{port}": str(port)}
    return tuple(_PART.sub(lambda match: values[match[0]], word) for word in words)
