"""YAML -> Profile: every problem at once, each with file, line and column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bake.errors import UsageError
from bake.profile import errors, fields, literals, yaml_source
from bake.profile.schema import Profile
from bake.profile.variables import Secrets, fill
from bake.profile.yaml_source import Document

Origins = Mapping[str, str]
"""Dotted path ("root_volume.size_gib") -> where its value came from."""

MAX_PARENTS = 5
NO_PROFILES = (
    "run bake in the folder that has profiles/, name another with bake --profiles DIRECTORY …, "
    "or start one here: bake init"
)


def names(directory: Path) -> list[str]:
    """The names of the profiles in `directory`; `_x.yaml` is only for others to extend."""
    return sorted(
        file.stem
        for file in directory.glob("*.yaml")
        if not file.name.endswith(".lock.yaml") and not file.name.startswith(("_", ".")) and file.is_file()
    )


def load(name: str, directory: Path, variables: Mapping[str, str], secrets: Secrets | None = None) -> Profile:
    """Read `directory/name.yaml` with `${NAME}` filled in from `variables`.

    Raises UsageError with every problem of the file, and of those it extends, in one message.
    """
    return load_with_origins(name, directory, variables, secrets)[0]


def load_with_origins(
    name: str, directory: Path, variables: Mapping[str, str], secrets: Secrets | None = None
) -> tuple[Profile, Origins]:
    """As `load`, and where each value came from: "profiles/x.yaml:17", "BASE_AMI_ID (.env.local)",
    "secretsmanager:NAME#KEY" or "default".
    """
    document, files = read(name, directory)
    filled = fill(document, variables, secrets)
    profile = errors.validated(name, filled)
    if document.problems or profile is None:
        raise UsageError(_messages(document, files), hint=_hint(bool(filled.missing)))
    return profile, errors.origins(profile, filled)


def read(name: str, directory: Path) -> tuple[Document, list[Path]]:
    """The profile with its parents merged in and nothing filled in; and its files, its own first."""
    require_folder(directory)
    known = names(directory)
    if name not in known:
        raise _unknown_profile(name, directory, known)
    chain = [_read_one(directory / f"{name}.yaml")]
    while (parent := _parent(chain[-1], [each.file for each in chain])) is not None:
        try:
            chain.append(_read_one(parent))
        except UsageError as error:
            said = [_messages(each, [each.file]) for each in chain if each.problems]
            raise UsageError("\n".join([*said, error.message])) from error
    document = chain[-1]
    for child in reversed(chain[:-1]):
        document = child.over(document)
    return document, [each.file for each in chain]


def require_folder(directory: Path) -> None:
    """Raise UsageError, with the path, if there is no folder of profiles."""
    if directory.is_dir():
        return
    wrong = "is not a folder" if directory.exists() else "does not exist"
    raise UsageError(
        f"no profiles: {directory.absolute()} {wrong}",
        hint=NO_PROFILES,
    )


def _unknown_profile(name: str, directory: Path, known: list[str]) -> UsageError:
    """The error for a profile that does not exist, with the nearest one that does."""
    place = directory.absolute()
    if not known:
        return UsageError(
            f"no profile named {yaml_source.printable(name, 64)!r} in {place}: there are none",
            hint=NO_PROFILES,
        )
    close = nearest(name, known)
    return UsageError(
        f"no profile named {yaml_source.printable(name, 64)!r} in {place}; there are: {', '.join(known)}",
        hint=f"did you mean --profile {close}?" if close else None,
    )


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that was most likely meant, also in capitals or with `.yaml`."""
    plain = name[:128].rpartition("/")[2].removesuffix(".yaml").removesuffix(".yml").removesuffix(".lock")
    by_lower = {one.lower(): one for one in reversed(known)}
    close = difflib.get_close_matches(plain.lower(), list(by_lower), 1)
    return by_lower[close[0]] if close else None


def outline(name: str, directory: Path) -> dict[str, Any]:
    """The content of a profile's files, parents merged in, with every `${NAME}` as it is.

    Raises UsageError for what can be seen to be wrong without variables.
    """
    document, files = read(name, directory)
    if document.problems:
        raise UsageError(_messages(document, files))
    return {key: value for key, value in document.value.items() if key != "extends"}


def _read_one(file: Path) -> Document:
    document = yaml_source.read(file, is_day=fields.is_day)
    literals.report(document)
    return document


def _parent(document: Document, files: list[Path]) -> Path | None:
    """The file that `document` extends; adds what is wrong with it to the problems."""
    if "extends" not in document.value or ("extends",) in document.unread:
        return None
    name = document.value["extends"]
    directory = document.file.parent
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".lock"):
        return _refuse_parent(document, "must be the name of one profile, without .yaml")
    file = directory / f"{name}.yaml"
    if file in files:
        circle = [*files[files.index(file) :], file]
        return _refuse_parent(document, f"extends itself: {' -> '.join(each.stem for each in circle)}")
    if not file.is_file():
        others = [each.stem for each in directory.glob("*.yaml") if not each.name.endswith(".lock.yaml")]
        others = sorted(set(others) - {document.file.stem})
        close = nearest(name, others)
        hint = f"did you mean {close}?" if close else f"there are: {', '.join(others) or 'none'}"
        return _refuse_parent(document, f"there is no profile {yaml_source.printable(name, 40)}", hint)
    if len(files) > MAX_PARENTS:
        return _refuse_parent(document, f"more than {MAX_PARENTS} levels of `extends`")
    return file


def _refuse_parent(document: Document, text: str, hint: str | None = None) -> Path | None:
    document.problem(("extends",), text, hint)
    document.partial = True
    return None


def _messages(document: Document, files: list[Path]) -> str:
    """Every problem once, by file and line."""
    found = sorted(
        dict.fromkeys(document.problems),
        key=lambda problem: (files.index(problem.mark.file), problem.mark.line, problem.mark.column),
    )
    return "\n".join(map(str, found))


def _hint(missing: bool) -> str | None:
    return "set the missing variables in the environment or in .env.local" if missing else None
