"""Turn pydantic's errors into messages about the profile, each with its place in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from bake.profile import fields
from bake.profile.schema import Profile, sections
from bake.profile.section import Section
from bake.profile.types import Unit
from bake.profile.variables import TOKEN, Filled
from bake.profile.yaml_source import Path_, dotted, printable

ANOTHER_NAME = "a variable is secret by its name (TOKEN, SECRET, _KEY …): give a key file's path another one"


def validated(name: str, filled: Filled) -> Profile | None:
    """The profile; or None, after adding each error to the document's problems."""
    values = {key: value for key, value in filled.value.items() if key not in ("name", "extends")}
    if "name" in filled.document.value:
        _unknown_key(filled, ("name",))
    _numbers_from_variables(values, filled)
    _refuse_secrets(filled)
    _refuse_duplicates(values, filled)
    _refuse_vain_rebuilds(values, filled)
    try:
        return Profile.model_validate({"name": name, **values})
    except ValidationError as error:
        items = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
        meant: set[Path_] = set()
        bad = {path for item in items if (path := _report(filled, item, meant))}
    for section, text in _conflicts(values, bad | filled.unresolved):
        if not filled.document.partial:
            filled.document.problem((section,), text, _likely_cause(filled, section, text), at_key=True)
    return None


def _numbers_from_variables(values: dict[str, Any], filled: Filled) -> None:
    """Turn the text of a variable into a number where the field is one."""
    for section, model in sections().items():
        content = values.get(section)
        raw = filled.document.value.get(section)
        if not isinstance(content, dict) or not isinstance(raw, dict):
            continue
        for key, info in model.model_fields.items():
            text = content.get(key)
            if info.annotation not in (int, int | None) or not isinstance(text, str) or text == raw.get(key):
                continue
            if re.fullmatch(r"0|[1-9][0-9]{0,17}", text, re.ASCII):
                content[key] = int(text)


def _refuse_secrets(filled: Filled) -> None:
    """Report secrets in what everybody reads: a check's path, a waiver's texts, a command's arguments."""
    for path in sorted(filled.private - filled.unresolved, key=str):
        if path[:2] == ("builder", "proxy_command"):
            why, hint = "everybody on this machine sees a command's arguments", ANOTHER_NAME
        elif path[0] in ("checks", "waivers"):
            why, hint = "it is shown in every report", None
        else:
            continue
        filled.unresolved.add(path)
        filled.document.problem(path, f"must not come from a secret: {why}", hint)


def _refuse_duplicates(values: Mapping[str, Any], filled: Filled) -> None:
    """Report each waiver of a check that another one before it waives."""
    first: dict[str, int] = {}
    waivers = values.get("waivers")
    for index, entry in enumerate(waivers if isinstance(waivers, list) else []):
        check = entry.get("check") if isinstance(entry, dict) else None
        if not isinstance(check, str) or first.setdefault(check, index) == index:
            continue
        path: Path_ = ("waivers", index, "check")
        before = filled.document.mark(("waivers", first[check], "check"))
        text = f"{_shown(filled, path, check)} has a waiver already, in line {before.line}"
        filled.document.problem(path, text, "leave one of them")


def _refuse_vain_rebuilds(values: Mapping[str, Any], filled: Filled) -> None:
    """Report rebuilds for updates that no bake installs: each would make the same image once more."""
    base, rebuild = values.get("base"), values.get("rebuild")
    if not isinstance(rebuild, dict) or rebuild.get("when_updates") != "security":
        return
    if not filled.document.partial and isinstance(base, dict) and base.get("updates", "none") == "none":
        text = "security needs base.updates: security, or the image that is made anew has none of them either"
        path: Path_ = ("rebuild", "when_updates")
        filled.document.problem(path, text, "updates of the base need your agreement, too: bake approve")


def _report(filled: Filled, item: Mapping[str, Any], meant: set[Path_]) -> Path_ | None:
    """Add one error to the document's problems; returns its path, or None for those between fields.

    `meant` are the keys that a mistyped one stands for: these are not called missing as well.
    """
    path: Path_ = tuple(part for part in item["loc"] if part != "[key]")
    if item["type"] == "value_error" and (not path or (len(path) == 1 and path[0] in sections())):
        _between_sections(filled, item)
        return None  # said by _conflicts, which hears of all sections, or by _refuse_…
    if path in filled.unresolved or any(path[:n] in filled.unresolved for n in range(1, len(path))):
        return path
    if item["type"] == "extra_forbidden":
        meant |= _unknown_key(filled, path)
    elif item["type"] != "missing" or not (path in meant or _may_be_elsewhere(filled, path)):
        text, hint = _message(filled, path, item)
        at_key = item["type"] == "missing" or item["loc"][-1] == "[key]"
        filled.document.problem(path, text, hint, at_key=at_key)
    return path


def _between_sections(filled: Filled, item: Mapping[str, Any]) -> None:
    """Report what a fleet has that the rest of the profile does not allow: `fleet.KEY says what is wrong`."""
    for line in str(item.get("ctx", {}).get("error", "")).splitlines():
        where, _, text = line.partition(" ")
        if where.startswith("fleet.") and not filled.document.partial:
            filled.document.problem(tuple(where.split(".")), text)


def _may_be_elsewhere(filled: Filled, path: Path_) -> bool:
    """Whether a missing value may stand in a file that could not be had; a list is in one file."""
    return filled.document.partial and not any(isinstance(part, int) for part in path)


def _unknown_key(filled: Filled, path: Path_) -> set[Path_]:
    key, known = str(path[-1]), fields.known_keys(path[:-1])
    close = difflib.get_close_matches(key[:64], known, 1)
    guess = close or (fields.homes(key) if key != "name" else [])
    hint = f"did you mean {guess[0]}?" if guess else f"known here: {', '.join(known)}"
    if not guess and key in fields.top_level():
        hint = f"{key} is a key of its own, in no section"
    filled.document.problem(path, "unknown key", hint, at_key=True)
    return {(*path[:-1], key) for key in close}


def _message(filled: Filled, path: Path_, item: Mapping[str, Any]) -> tuple[str, str | None]:
    value, limits = item.get("input"), item.get("ctx", {})
    shown = _shown(filled, path, value)
    if item["type"] == "missing":
        variable = filled.emptied.get(path)
        return (
            f"is missing: {variable} is not set and its default is empty" if variable else "is missing"
        ), None
    if value is None:
        return "has no value", "write [] for none" if fields.is_list(path) else None
    match item["type"]:
        case "like":
            return f"{shown} does not look like {limits['words']}", None
        case "literal_error":
            return _literal_message(str(limits["expected"]), value, shown)
        case "value_error":
            return str(limits["error"]), None
        case "int_type" | "int_parsing" | "int_from_float":
            return f"must be a whole number, not {shown}", _number_hint(path, value)
        case "bool_type" | "bool_parsing":
            return f"must be true or false, not {shown}", None
        case "string_type":
            return f"must be text, not {shown}", _quote_hint(value)
        case "tuple_type" | "list_type":
            return f"must be a list, not {shown}", None
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping (`key: value`), not {shown}", None
        case "greater_than_equal":
            return f"must be at least {limits['ge']:,}, not {shown}", None
        case "less_than_equal":
            return f"must be at most {limits['le']:,}, not {shown}", None
        case "string_too_short" if value == "":
            return "is empty", None
        case "string_too_short":
            return f"must have at least {limits['min_length']} letters, not {shown}", None
        case "string_too_long":
            return f"must have at most {limits['max_length']} letters", None
        case "too_short":
            return f"must have at least {limits['min_length']} entry", None
        case "too_long":
            return f"must have at most {limits['max_length']} entries", None
    return f"{item['msg'][0].lower()}{item['msg'][1:]}, not {shown}", None


def _shown(filled: Filled, path: Path_, value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    # A URL may hold a password.
    hidden = path in filled.private or path[:2] in (TOKEN, ("worker", "source"))
    hidden = hidden or ("://" in str(value) and "@" in str(value))
    return "what is given" if hidden else printable(str(value) if value != "" else "''", 60)


def _literal_message(expected: str, value: Any, shown: str) -> tuple[str, str | None]:
    known = re.findall(r"'([^']*)'", expected)
    close = difflib.get_close_matches(str(value)[:64].lower(), known, 1)
    hint = f"did you mean {close[0]}?" if close else None
    return f"must be {' or '.join(known)}, not {shown}", hint


def _number_hint(path: Path_, value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    if value.isdecimal() and value.isascii():
        return "write it without quotes"
    info = fields.field(path)
    units = [item.name for item in (info.metadata if info else []) if isinstance(item, Unit)]
    if units and re.match(r"\s*[0-9]", value):
        return f"write the number alone: {path[-1]} counts {units[0]}"
    return None


def _quote_hint(value: Any) -> str | None:
    return "put it in quotes" if isinstance(value, int | float) else None


class _Undecided:
    """Stands for a field that is wrong by itself: comparing it raises ValueError."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("undecided")


def _conflicts(values: Mapping[str, Any], bad: set[Path_]) -> Iterator[tuple[str, str]]:
    """Conflicts between fields, also in sections where one field is wrong by itself."""
    for section, model in sections().items():
        content = values.get(section)
        if not isinstance(content, dict) or (section,) in bad:
            continue
        unsure = {path[1] for path in bad if len(path) > 1 and path[0] == section}
        fields = {key: value for key, value in content.items() if key in model.model_fields}
        fields |= {key: _Undecided() for key in unsure if key in fields}
        try:
            for text in model.model_construct(None, **fields).conflicts():
                yield section, text
        except (AttributeError, TypeError, ValueError):
            continue  # it hung on a field that was reported already


def _likely_cause(filled: Filled, section: str, text: str) -> str | None:
    """A cause of a conflict in `section` that its own lines do not show."""
    document = filled.document
    own = document.keys.get((section,))
    for key in re.findall(r"\w+", text):
        path: Path_ = (section, key)
        if path in filled.emptied:
            return f"{key} has no value, since {filled.emptied[path]} is not set"
        mark = document.keys.get(path)
        if own and mark and mark.file != own.file and filled.value[section].get(key) is not None:
            return f"{key} comes from {mark.file}:{mark.line}; `{key}: null` here drops it"
    return None


def origins(profile: Profile, filled: Filled) -> dict[str, str]:
    """Where each value of `profile` came from, by dotted path; "default" if nowhere."""
    found = {"name": str(filled.document.file)}
    for section, model in sections().items():
        for key in model.model_fields:
            found |= _origins((section, key), getattr(getattr(profile, section), key), filled)
    for key in fields.top_level():
        found |= _origins((key,), getattr(profile, key), filled)
    return found


def _origins(path: Path_, value: Any, filled: Filled) -> dict[str, str]:
    """The origin of one value and, of a list or of names, those of its entries and of what is in them."""
    found = {dotted(path): filled.origins.get(dotted(path), "default")}
    below: list[Path_] = []
    for index, entry in value.items() if isinstance(value, dict) else _numbered(value):
        inner = type(entry).model_fields if isinstance(entry, Section) else ()
        below += [(*path, index), *((*path, index, key) for key in inner)]
    return found | {name: filled.origins[name] for name in map(dotted, below) if name in filled.origins}


def _numbered(value: Any) -> Iterator[tuple[int, Any]]:
    """The entries of a list with their places."""
    yield from enumerate(value if isinstance(value, tuple) else ())
