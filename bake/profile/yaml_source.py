"""Read YAML and remember where each value stands, so that a problem names its file, line and column."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from bake.errors import UsageError
from bake.redaction import SHORTEST, redact, redact_registered

Path_ = tuple[str | int, ...]
MAX_BYTES = 64 * 1024
MAX_DEPTH = 12
MAX_VALUES = 5_000

TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file, and what to do about it."""

    mark: Mark
    text: str
    hint: str | None = None

    def __str__(self) -> str:
        tail = f"\n    {printable(self.hint, 400)}" if self.hint else ""
        return f"{self.mark}: {printable(self.text, 400)}{tail}"


@dataclass
class Document:
    """Plain values of a YAML mapping, and the mark of each value (`marks`) and of each key (`keys`).

    `unread` are the values that were reported already and stand as None; `partial` says that a file that
    this one extends could not be had.
    """

    file: Path
    value: dict[str, Any] = field(default_factory=dict)
    marks: dict[Path_, Mark] = field(default_factory=dict)
    keys: dict[Path_, Mark] = field(default_factory=dict)
    unread: set[Path_] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    partial: bool = False

    def mark(self, path: Path_) -> Mark:
        """The place of the value of `path`; if it is missing, of its nearest parent's key."""
        if mark := self.marks.get(path):
            return mark
        for length in range(len(path) - 1, 0, -1):
            if mark := self.keys.get(path[:length]) or self.marks.get(path[:length]):
                return mark
        return Mark(self.file, 1, 1)

    def problem(self, path: Path_, text: str, hint: str | None = None, *, at_key: bool = False) -> None:
        """Add a problem with the value (or the key) of `path`."""
        mark = self.keys.get(path) if at_key else None
        self.problems.append(Problem(mark or self.mark(path), f"{dotted(path)}: {text}", hint))

    def over(self, parent: Document) -> Document:
        """This document over its `parent`: mappings are merged, everything else is replaced."""
        marks = {path: mark for path, mark in parent.marks.items() if not self._replaces(path)}
        keys = {path: mark for path, mark in parent.keys.items() if not self._replaces(path)}
        return Document(
            self.file,
            _merged(self.value, parent.value),
            {**marks, **self.marks},
            {**keys, **self.keys},
            self.unread | {path for path in parent.unread if not self._replaces(path)},
            [*self.problems, *parent.problems],
            self.partial or parent.partial,
        )

    def _replaces(self, path: Path_) -> bool:
        """Whether a value of this document, such as a list, stands in place of all that `path` is in."""
        value: Any = self.value
        for part in path:
            if not isinstance(value, dict):
                return True
            if part not in value:
                return False
            value = value[part]
        return False


def _merged(child: dict[str, Any], parent: dict[str, Any]) -> dict[str, Any]:
    both = {**parent, **child}
    for key, value in child.items():
        if isinstance(value, dict) and isinstance(parent.get(key), dict):
            both[key] = _merged(value, parent[key])
    return both


def dotted(path: Path_) -> str:
    """A path as people write it: `root_volume.size_gib`."""
    return ".".join(printable(str(part), 40) for part in path)


def printable(text: str, width: int) -> str:
    """`text` on one line, cut to `width`, without tokens: a file may hold anything."""
    line = "".join(letter if letter.isprintable() else "�" for letter in redact_registered(text))
    line = redact(re.sub(r"hf_[A-Za-z0-9]{10,}", "hf_…", line))
    return line if len(line) <= width else f"{line[: width - 1]}…"


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses deep nesting and anchors that contain themselves."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.open: list[str | None] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) and event.anchor in self.open:
            raise yaml.MarkedYAMLError(None, None, f"the anchor {event.anchor} contains itself", mark)
        if len(self.open) >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        self.open.append(getattr(event, "anchor", None))
        node = super().compose_node(parent, index)
        self.open.pop()
        return node


def read(
    file: Path,
    *,
    what: str = "profile",
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
    is_day: Callable[[Path_], bool] = lambda path: False,
) -> Document:
    """Read one YAML mapping; `what` is what messages call such a file.

    A date stays text as it is written where `is_day` holds for its path; elsewhere it is a problem.
    Syntax that leaves nothing to go on raises UsageError at its place; what leaves the rest readable
    (duplicate keys, say) is collected in `problems`.
    """
    loader = _Loader(_text(file, what, max_bytes))
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        mark = Mark(file, place.line + 1, place.column + 1) if place else Mark(file, 1, 1)
        text = ": ".join(part for part in (error.context, error.problem) if part).replace(": but", ", but")
        # `*` or `&` may begin a password without quotes.
        text = re.sub(rf"(alias|anchor) '[^']{{{SHORTEST},}}'", r"\1", text)
        _refuse(mark, text, _syntax_hint(text, error.context_mark, mark))
    finally:
        loader.dispose()
    if not isinstance(node, yaml.MappingNode):
        _refuse(
            _mark(file, node) if node else Mark(file, 1, 1),
            f"a {what} is a mapping (`key: value`), this is not",
        )
    document = Document(file)
    _Reader(document, max_values, is_day).root(node)
    return document


def _text(file: Path, what: str, max_bytes: int) -> str:
    try:
        if (size := file.stat().st_size) > max_bytes:
            _refuse(Mark(file, 1, 1), f"{size:,} bytes; a {what} has at most {max_bytes:,}")
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}:1:1: cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(_place(file, content[: error.start].decode("latin-1")), "not UTF-8")
    if bad := yaml.reader.Reader.NON_PRINTABLE.search(text):
        _refuse(_place(file, text[: bad.start()]), f"the character U+{ord(bad[0]):04X} can't stand in YAML")
    return text


def _place(file: Path, before: str) -> Mark:
    lines = before.split("\n")
    return Mark(file, len(lines), len(lines[-1]) + 1)


def _refuse(mark: Mark, text: str, hint: str | None = None) -> NoReturn:
    raise UsageError(str(Problem(mark, text, hint)))


def _syntax_hint(text: str, began: yaml.Mark | None, mark: Mark) -> str | None:
    if "\\t" in text:
        return "YAML is indented with spaces, never with tabs"
    if "another document" in text:
        return "one file is one mapping: `---` starts another"
    if "mapping values are not allowed" in text:
        return "is there a `:` missing in the line above, or the space after it?"
    if "<block end>" in text:
        return "the indentation differs from that of the lines above"
    return f"it began in line {began.line + 1}" if began and began.line + 1 < mark.line else None


def _mark(file: Path, node: yaml.Node) -> Mark:
    return Mark(file, node.start_mark.line + 1, node.start_mark.column + 1)


class _Reader:
    """Turns nodes into plain values. YAML 1.1 reads `no`, `0120`, `1:30` and dates as something else than
    what is written; where that would happen it is a problem, so that nothing is taken for what it is not.
    """

    def __init__(self, document: Document, max_values: int, is_day: Callable[[Path_], bool]) -> None:
        self.document = document
        self.max_values = max_values
        self.is_day = is_day
        self.values = 0

    def root(self, node: yaml.MappingNode) -> None:
        self.document.marks[()] = _mark(self.document.file, node)
        self.document.value = self.mapping(node, ())

    def mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = _mark(self.document.file, key_node)
            if key_node.tag == f"{TAG}merge":
                hint = "share values between profiles with `extends: NAME`"
                self.document.problems.append(Problem(mark, "<<: merge keys are not read here", hint))
                continue
            word = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if not word or word != word.strip():
                self.document.problems.append(Problem(mark, "a key must be a word"))
                continue
            here = (*path, word)
            if word in values:
                text = f"{dotted(here)}: given twice, first in line {self.document.keys[here].line}"
                self.document.problems.append(Problem(mark, text))
                continue
            self.document.keys[here] = mark
            values[word] = self.value(value_node, here)
        return values

    def value(self, node: yaml.Node, path: Path_) -> Any:
        mark = self.document.marks[path] = _mark(self.document.file, node)
        self.values += 1
        if self.values > self.max_values:
            _refuse(mark, f"more than {self.max_values:,} values, aliases filled in")
        if isinstance(node, yaml.MappingNode) and node.tag == f"{TAG}map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        return self.unread(path, f"the tag {node.tag.replace(TAG, '!!')} is not read here")

    def scalar(self, node: yaml.ScalarNode, path: Path_) -> Any:
        text: str = node.value
        match node.tag.removeprefix(TAG):
            case "str":
                return text
            case "null":
                return None
            case "int" if re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text):
                return int(text)
            case "float" if re.fullmatch(r"-?[0-9]{1,17}\.[0-9]{1,17}", text):
                return float(text)
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "bool":
                return self.misread(text, path, "as true or false", "put it in quotes if the word is meant")
            case "int" | "float":
                return self.misread(text, path, _number(node), "write a plain decimal number")
            case "timestamp" if self.is_day(path):
                return text
            case "timestamp":
                return self.misread(text, path, "as a date", "put it in quotes if the text is meant")
        return self.unread(path, f"the tag {node.tag.replace(TAG, '!!')} is not read here")

    def misread(self, text: str, path: Path_, as_what: str, hint: str) -> None:
        # Never show a token, nor the number that YAML makes of it.
        if path[:2] == ("weights", "token"):
            self.unread(path, "YAML reads what is given as something else than text", hint)
        else:
            self.unread(path, f"YAML reads {printable(text, 40)} {as_what}", hint)

    def unread(self, path: Path_, text: str, hint: str | None = None) -> None:
        self.document.unread.add(path)
        self.document.problem(path, text, hint)


def _number(node: yaml.ScalarNode) -> str:
    if len(node.value) > 18:
        return "as a number too large"
    try:
        return f"as the number {yaml.constructor.SafeConstructor().construct_object(node)}"
    except (ValueError, OverflowError, yaml.YAMLError):
        return "as a number"
