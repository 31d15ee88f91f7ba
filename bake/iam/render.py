"""Write a policy as JSON that people can read: short lists and mappings on one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

WIDTH = 110  # columns


def as_text(value: Any, indent: int = 0, used: int = 0) -> str:
    """JSON in lines of at most WIDTH columns where that can be; `used` columns of the first are taken."""
    flat = json.dumps(value, ensure_ascii=False)
    nested = isinstance(value, Mapping) and any(isinstance(one, Mapping | list) for one in value.values())
    if not isinstance(value, Mapping | list) or (not nested and indent + used + len(flat) < WIDTH):
        return flat
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return _wrapped(value, indent)
    inner = " " * (indent + 2)
    if isinstance(value, Mapping):
        items = [f"{json.dumps(key)}: {as_text(one, indent + 2, len(key) + 4)}" for key, one in value.items()]
        opened, closed = "{}"
    else:
        items, (opened, closed) = [as_text(one, indent + 2) for one in value], "[]"
    body = f",\n{inner}".join(items)
    return f"{opened}\n{inner}{body}\n{' ' * indent}{closed}"


def _wrapped(texts: list[str], indent: int) -> str:
    """A list of texts, as many to a line as fit."""
    inner, lines = " " * (indent + 2), [""]
    for number, text in enumerate(texts, 1):
        item = json.dumps(text, ensure_ascii=False) + ("," if number < len(texts) else "")
        if lines[-1] and len(inner) + len(lines[-1]) + 1 + len(item) > WIDTH:
            lines.append("")
        lines[-1] += f" {item}" if lines[-1] else item
    body = f"\n{inner}".join(lines)
    return f"[\n{inner}{body}\n{' ' * indent}]"
