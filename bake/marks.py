"""YAML with a memory of where each value stands, so that a problem can name its line and column."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bake.errors import UsageError

Path_ = tuple[str | int, ...]
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file, and what to do about it."""

    file: Path
    mark: Mark
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        tail = f"\n    {self.hint}" if self.hint else ""
        return f"{self.file}:{self.mark.line}:{self.mark.column}: {self.text}{tail}"


@dataclass
class Document:
    """Plain values of a YAML mapping, and the mark of each value (`marks`) and of each key (`keys`)."""

    file: Path
    value: dict[str, Any] = field(default_factory=dict)
    marks: dict[Path_, Mark] = field(default_factory=dict)
    keys: dict[Path_, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path_) -> Mark:
        """Where `path` stands; for something missing, where its nearest parent stands."""
        for length in range(len(path), -1, -1):
            if mark := self.marks.get(path[:length]):
                return mark
        return Mark(1, 1)

    def problem(self, path: Path_, text: str, hint: str | None = None, *, at_key: bool = False) -> None:
        mark = self.keys.get(path) if at_key else None
        name = ".".join(str(part) for part in path)
        self.problems.append(
            Problem(self.file, mark or self.mark(path), f"{name}: {text}" if name else text, hint)
        )


def read(file: Path) -> Document:
    """Read one YAML mapping. Syntax that leaves nothing to go on raises UsageError at its place;
    duplicate keys are collected in `problems`.
    """
    content = file.read_bytes()
    if len(content) > MAX_BYTES:
        raise UsageError(f"{file}: {len(content):,} bytes; a profile has at most {MAX_BYTES:,}")
    try:
        node = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}: " if mark else ""
        raise UsageError(
            f"{file}:{place}{error.problem or error.context}", hint=_syntax_hint(error)
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: {error}") from error
    document = Document(file)
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{file}:1:1: a profile is a mapping (`base:`, `builder:`, …), this is not")
    document.value = _mapping(node, (), document)
    return document


def _syntax_hint(error: yaml.MarkedYAMLError) -> str | None:
    if "\\t" in str(error.problem):
        return "YAML is indented with spaces, never with tabs"
    return None


def _mapping(node: yaml.MappingNode, path: Path_, document: Document) -> dict[str, Any]:
    document.marks[path] = _mark(node)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(getattr(key_node, "value", "?"))
        here = (*path, key)
        if key in values:
            first = document.keys[here]
            document.problems.append(
                Problem(document.file, _mark(key_node), f"{key}: given twice, first in line {first.line}")
            )
            continue
        document.keys[here] = _mark(key_node)
        values[key] = _value(value_node, here, document)
    return values


def _value(node: yaml.Node, path: Path_, document: Document) -> Any:
    document.marks[path] = _mark(node)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), document) for index, item in enumerate(node.value)]
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError):
        document.problem(path, f"cannot be read as {node.tag}")
        return None


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
