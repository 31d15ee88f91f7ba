"""Read and write profiles/X.lock.yaml: the agreement, and the weights that `bake lock` pinned."""

from __future__ import annotations

import difflib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bake.agreement.facts import GUARDED, NAMES, PINNED, Agreement, Entry
from bake.errors import BakeError, UsageError
from bake.profile import yaml_source
from bake.weights.flux import WeightFile
from bake.weights.lock import Lock

REHEARSALS = Path(".bake/rehearsal")
# Room for a history of years.
MAX_BYTES, MAX_VALUES = 4_000_000, 100_000
HASHES = {"sha256": 64, "git_oid": 40}  # hexadecimal digits
WEIGHTS: dict[str, type] = {"weights.repo": str, "weights.revision": str, "weights.files": dict}
INPUTS = {**WEIGHTS, **PINNED}

ABOUT = """\
# What was agreed and locked for {what}.
# `bake` refuses, with exit code 3, to use anything else. `bake approve` writes what is agreed, `bake lock`
# the weights; nothing else writes here.
"""
INCOMPLETE = """\
# Of the weights only sizes are known here, no hashes: the first `bake lock` completes this, and before that
# nothing is baked.
"""


@dataclass(frozen=True)
class LockFile:
    """The content of a lock file; None for a part that has not been recorded yet."""

    file: Path
    agreement: Agreement | None = None
    weights: Lock | None = None


def path_of(profile: str, directory: Path, *, rehearsal: bool) -> Path:
    """The path of a profile's lock file; rehearsals have their own, since nothing in it is the user's."""
    return (REHEARSALS if rehearsal else directory) / f"{profile}.lock.yaml"


def read(file: Path) -> LockFile:
    """Read what is agreed and locked in `file`; nothing if there is no such file.

    Raises UsageError with every problem of a broken file, each with its line and column.
    """
    if not file.exists():
        return LockFile(file)
    _refuse_conflict(file)
    document = yaml_source.read(file, what="lock file", max_bytes=MAX_BYTES, max_values=MAX_VALUES)
    _check_keys(document, (), document.value, ("agreed", "inputs", "history"))
    agreed = _values(document, "agreed", GUARDED)
    inputs = _values(document, "inputs", INPUTS)
    agreed |= {name: inputs[name] for name in PINNED if name in inputs}
    history = _history(document)
    weights = _lock(document, inputs)
    if document.problems:
        problems = sorted(document.problems, key=lambda problem: (problem.mark.line, problem.mark.column))
        raise UsageError(
            "\n".join(str(problem) for problem in problems),
            hint="only `bake approve` and `bake lock` write this file; take the last good one from git",
        )
    return LockFile(file, Agreement(file, agreed, history) if agreed or history else None, weights)


def _refuse_conflict(file: Path) -> None:
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.startswith((b"<<<<<<< ", b">>>>>>> ")):
            raise UsageError(
                f"{file}:{number}:1: a merge left two agreements here",
                hint="keep one of them whole, then `bake plan` shows what is agreed",
            )


def _check_keys(
    document: yaml_source.Document, path: yaml_source.Path_, value: Mapping[str, Any], known: tuple[str, ...]
) -> None:
    for key in value:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            document.problem((*path, key), "unknown", hint, at_key=True)


def _values(
    document: yaml_source.Document, section: str, kinds: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    if section not in document.value:
        return {}
    content: Any = document.value[section]
    if not isinstance(content, dict):
        document.problem((section,), "must be a mapping of facts")
        return {}
    _check_keys(document, (section,), content, tuple(kinds))
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        if name not in content or (section, name) in document.unread:
            continue
        value = content[name]
        if not _fits(value, kind):
            document.problem((section, name), f"{value!r} is not {_words(kind)}")
        elif isinstance(value, dict):
            found[name] = _files(document, (section, name), value)
        else:
            found[name] = value
    return found


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, list) or all(isinstance(item, str) for item in value)


def _words(kind: type | tuple[type, ...]) -> str:
    words = {
        str: "a text",
        int: "a whole number",
        list: "a list of texts",
        dict: "a mapping",
        type(None): "null",
    }
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(words[one] for one in kinds)


def _files(
    document: yaml_source.Document, path: yaml_source.Path_, content: Mapping[str, Any]
) -> dict[str, WeightFile]:
    files = {}
    for name, value in content.items():
        here = (*path, name)
        if not isinstance(value, dict) or type(value.get("bytes")) is not int:
            document.problem(here, "needs bytes, a whole number")
            continue
        if not _inside(name):
            document.problem(here, "is not the path of a file in a repository", at_key=True)
        _check_keys(document, here, value, ("bytes", *HASHES))
        for kind, digits in HASHES.items():
            text = value.get(kind)
            right = isinstance(text, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", text)
            if text is not None and not right:
                document.problem((*here, kind), f"is not {digits} hexadecimal digits")
        files[name] = WeightFile(value["bytes"], value.get("sha256"), value.get("git_oid"))
    return files


def _inside(path: Any) -> bool:
    """Whether this is a relative path without `..`: it becomes a path in the cache."""
    return isinstance(path, str) and all(part not in ("", ".", "..") for part in path.split("/"))


def _lock(document: yaml_source.Document, inputs: Mapping[str, Any]) -> Lock | None:
    given = [name for name in WEIGHTS if name in inputs]
    if not given or document.problems:
        return None
    for name in WEIGHTS.keys() - set(given):
        document.problem(("inputs",), f"{name} is missing beside {' and '.join(given)}", "run `bake lock`")
    return None if document.problems else Lock(*(inputs[name] for name in WEIGHTS))


def _history(document: yaml_source.Document) -> tuple[Entry, ...]:
    content = document.value.get("history", [])
    if not isinstance(content, list):
        document.problem(("history",), "must be a list")
        return ()
    entries = []
    for index, item in enumerate(content):
        path: yaml_source.Path_ = ("history", index)
        if not isinstance(item, dict):
            document.problem(path, "must be a mapping of when, who, why and changed")
            continue
        _check_keys(document, path, item, ("when", "who", "why", "changed"))
        when, who, why = (str(item.get(key, "")) for key in ("when", "who", "why"))
        changed = item.get("changed")
        entries.append(Entry(when, who, why, changed if isinstance(changed, dict) else {}))
    return tuple(entries)


def text(held: LockFile, what: str) -> str:
    """The lock file's content: facts in the order of `NAMES`, the history oldest first."""
    agreement, weights = held.agreement or Agreement(held.file), held.weights
    values = {name: agreement.agreed[name] for name in NAMES if name in agreement.agreed}
    inputs = _weights(weights) if weights else {}
    content: dict[str, Any] = {
        "agreed": {name: value for name, value in values.items() if name in GUARDED},
        "inputs": {**inputs, **{name: value for name, value in values.items() if name in PINNED}},
        "history": [
            {
                "when": entry.when,
                **({"who": entry.who} if entry.who else {}),  # nobody has said so in a proposal
                "why": entry.why,
                "changed": dict(entry.changed),
            }
            for entry in agreement.history
        ],
    }
    said = {section: value for section, value in content.items() if value}
    body = yaml.dump(said, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    about = ABOUT + (INCOMPLETE if weights and not weights.complete else "")
    return about.format(what=what) + body


def _weights(weights: Lock) -> dict[str, Any]:
    files = {path: file.as_dict() for path, file in sorted(weights.files.items())}
    return dict(zip(WEIGHTS, (weights.repo, weights.revision, files), strict=True))


class _Dumper(yaml.SafeDumper):
    """Write plain lists on one line and no anchors, for readable differences in git."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, dict | list) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


def _mapping(dumper: yaml.SafeDumper, value: dict[str, Any]) -> yaml.Node:
    flat = bool(value) and value.keys() <= {"from", "to", "bytes", *HASHES}
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=flat)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _mapping)


def write(held: LockFile, before: bytes | None, what: str) -> None:
    """Replace the lock file atomically.

    `before` is what it held when `held` was made of it (None: it was not there); BakeError when somebody
    else wrote it meanwhile, since what they wrote would be lost.
    """
    file = held.file.resolve() if held.file.is_symlink() else held.file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _exclusively(file.parent):
            if content(file) != before:
                raise BakeError(f"{file} changed meanwhile; nothing was written", hint="try again")
            _replace(file, text(held, what).encode())
    except OSError as error:
        raise BakeError(f"{file} could not be written: {error.strerror or error}") from error


def content(file: Path) -> bytes | None:
    """The bytes of a lock file; None when it is not there."""
    with suppress(FileNotFoundError):
        return file.read_bytes()
    return None


@contextmanager
def _exclusively(directory: Path) -> Iterator[None]:
    """One writer at a time. The directory is the lock: filelock would leave a file beside the profiles."""
    number = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _replace(file: Path, body: bytes) -> None:
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask()
    number, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(number, "wb") as output:
            output.write(body)
            output.flush()
            os.fsync(output.fileno())
        Path(partial).chmod(mode)
        Path(partial).replace(file)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
