"""Fill in `${NAME}`, `${NAME:-default}` and `secretsmanager:NAME#KEY`, and record where values come from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv.main import DotEnv
from dotenv.parser import parse_stream

from bake import redaction, surroundings, tokens
from bake.errors import BakeError, UsageError
from bake.profile.patterns import PUBLIC
from bake.profile.yaml_source import Document, Path_, dotted

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}$]*))?\}")
STORED = "secretsmanager:"
SECRET = re.compile(rf"{STORED}([^#\s]+)#([^#\s]+)")
TOKEN: Path_ = ("weights", "token")
# Always secret, whether or not a profile uses them; boto3 and others read them on their own.
SECRET_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY", re.IGNORECASE)
DROPPED = object()

# New name of a variable -> old name (R-CACHE).
OLD_NAMES = {"HF_HUB_CACHE": "HUGGINGFACE_HUB_CACHE"}

Secrets = Callable[[str, str], str]
"""Reads NAME, KEY from Secrets Manager; a BakeError says why it can't."""


class Variables(Mapping[str, str]):
    """The values of `${NAME}`, and where each was set."""

    def __init__(self, values: Mapping[str, str], source: str = "environment") -> None:
        self._values = dict(values)
        self._sources = dict.fromkeys(values, source)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Variables({', '.join(sorted(self._values))})"  # names only: values may be secret

    def overlaid(self, values: Mapping[str, str], source: str) -> Variables:
        """These variables with `values` over them, which come from `source`."""
        both = Variables({**self._values, **values})
        both._sources = {**self._sources, **dict.fromkeys(values, source)}
        return both

    def source(self, name: str) -> str:
        """Where `name` was set: "environment", ".env.local", …"""
        return self._sources.get(name, "environment")


def environment(env_file: Path | None) -> Variables:
    """The process's environment over `env_file` (`.env.local`): what is exported wins, unless it is empty.

    Raises UsageError for a file that can't be read or has lines that say nothing.
    """
    stored = _stored(env_file) if env_file is not None else {}
    exported = {name: value for name, value in surroundings.exported().items() if value or name not in stored}
    found = Variables(stored, env_file.name if env_file else "").overlaid(exported, "environment")
    for name, old in OLD_NAMES.items():
        if found.get(old) and not found.get(name):
            found = found.overlaid({name: found[old]}, f"{old}, its old name, {found.source(old)}")
    for name in SECRET_VARIABLES:
        redaction.register(found.get(name, ""))
    return found


def _stored(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        with file.open(encoding="utf-8-sig") as stream:
            bad = [binding.original.line for binding in parse_stream(stream) if binding.error]
        if bad:
            lines = "\n".join(f"{file}:{line}:1: not of the form NAME=value" for line in bad)
            raise UsageError(lines)  # the line itself may hold a secret
        found = DotEnv(file, encoding="utf-8-sig", interpolate=True, override=False).dict()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{file}:1:1: cannot be read: {reason}") from error
    return {name: value for name, value in found.items() if value is not None}


@dataclass
class Filled:
    """A document's values with every reference filled in.

    `unresolved` are the paths that were reported already; `emptied` those that an empty default took out,
    with the variable; `private` those whose value is never shown; `origins` say where values came from.
    """

    document: Document
    variables: Mapping[str, str]
    secrets: Secrets | None
    value: dict[str, Any] = field(default_factory=dict)
    unresolved: set[Path_] = field(default_factory=set)
    emptied: dict[Path_, str] = field(default_factory=dict)
    private: set[Path_] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    faulty: set[str] = field(default_factory=set)
    read: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def walk(self, value: Any, path: Path_) -> Any:
        """Fill in every string below `value`."""
        self._origin(path, "")
        if isinstance(value, dict):
            items = ((key, self.walk(item, (*path, key))) for key, item in value.items())
            return {key: item for key, item in items if item is not DROPPED}
        if isinstance(value, list):
            filled = [self.walk(item, (*path, index)) for index, item in enumerate(value)]
            return [item for item in filled if item is not DROPPED]
        return self.text(value, path) if isinstance(value, str) else value

    def text(self, raw: str, path: Path_) -> Any:
        """Fill in one string; DROPPED if an empty default means that there is no value."""
        names = [match[1] for match in REFERENCE.finditer(raw)]
        if "$" in REFERENCE.sub("", raw):
            self._unresolved(path, "`$` without a variable's name", "write ${NAME} or ${NAME:-default}")
            return raw
        absent = [m[1] for m in REFERENCE.finditer(raw) if m[2] is None and not self.variables.get(m[1])]
        if absent:
            self.unresolved.add(path)
            for name in dict.fromkeys(absent):
                if name not in self.missing:
                    self.missing.add(name)
                    self.document.problem(path, f"the variable {name} is not set")
            return raw
        filled = REFERENCE.sub(lambda match: self.variables.get(match[1]) or match[2] or "", raw)
        if names:
            self._from_variables(names, path)
        if names and not filled:
            self.emptied[path] = names[0]
            self.origins.pop(dotted(path), None)
            return DROPPED
        stored = filled.startswith(STORED)
        value = self._secret(filled, path) if stored else filled
        if (names or stored) and path not in self.unresolved:
            self._check(value, path, filled if stored else None, names)
        return value

    def _check(self, value: str, path: Path_, place: str | None, names: list[str]) -> None:
        """Refuse a value with characters that no request can hold.

        `place` is where a secret is stored, `names` are the variables that the value is made of.
        """
        if path == TOKEN or (path in self.private and not PUBLIC.fullmatch(value)):
            redaction.register(value)
        judge = tokens.fault if path == TOKEN else tokens.line_fault
        known = [name for name in dict.fromkeys(names) if self.variables.get(name)]
        if place is not None:
            if fault := judge(value):
                self._unresolved(path, f"{place} {fault}", "store it anew: `printf %s` adds no line break")
        elif not known:
            if fault := judge(value):
                self._unresolved(path, f"the default of {names[0]} {fault}", None)
        elif len(known) == 1:
            self._faulty(path, known[0], judge(value))
        else:
            for name in known:
                self._faulty(path, name, tokens.line_fault(self.variables[name]))

    def _faulty(self, path: Path_, name: str, fault: str | None) -> None:
        """Report a variable's fault, once for all values that use it."""
        if fault is None:
            return
        self.unresolved.add(path)
        if name not in self.faulty:
            self.faulty.add(name)
            source = self._source(name)
            self.document.problem(path, f"{name} ({source}) {fault}", tokens.hint(name, source))

    def _from_variables(self, names: list[str], path: Path_) -> None:
        known = [name for name in names if self.variables.get(name)]
        said = ", ".join(f"{name} ({self._source(name)})" for name in dict.fromkeys(known))
        self._origin(path, said or f"{self._place(path)} ({names[0]} is not set)")
        if any(SECRET_NAME.search(name) for name in known):
            self.private.add(path)

    def _source(self, name: str) -> str:
        source: str = getattr(self.variables, "source", lambda name: "environment")(name)
        return source

    def _secret(self, text: str, path: Path_) -> str:
        """Read `secretsmanager:NAME#KEY`, each one once."""
        self.private.add(path)
        match = SECRET.fullmatch(text)
        if match is None:
            self._unresolved(path, "not a secret's name and key", "write secretsmanager:NAME#KEY")
            return text
        name, key = match[1], match[2]
        self._origin(path, text)
        if (name, key) not in self.read:
            self.read[name, key] = None
            try:
                self.read[name, key] = self._ask(name, key)
            except BakeError as error:
                self._unresolved(path, f"{text} cannot be read: {error.message}", error.hint)
        value = self.read[name, key]
        if value is None:
            self.unresolved.add(path)
        return value or text

    def _ask(self, name: str, key: str) -> str:
        if self.secrets is None:
            raise BakeError("there is no Secrets Manager here")
        value = self.secrets(name, key)
        if not isinstance(value, str) or not value:
            raise BakeError("it is empty or not text")
        return value

    def _unresolved(self, path: Path_, text: str, hint: str | None) -> None:
        self.unresolved.add(path)
        self.document.problem(path, text, hint)

    def _origin(self, path: Path_, said: str) -> None:
        self.origins[dotted(path)] = said or self._place(path)

    def _place(self, path: Path_) -> str:
        mark = self.document.mark(path)
        return f"{mark.file}:{mark.line}"


def fill(document: Document, variables: Mapping[str, str], secrets: Secrets | None) -> Filled:
    """Fill in every reference of `document`; adds those that can't be filled in to its problems."""
    filled = Filled(document, variables, secrets, unresolved=set(document.unread))
    filled.value = {
        key: value
        for key, raw in document.value.items()
        if (value := filled.walk(raw, (key,))) is not DROPPED
    }
    return filled
