"""Look up in the schema what stands at a path of a profile: ("weights", "token"), ("waivers", 0, "until")."""

from __future__ import annotations

from datetime import date
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from bake.profile.schema import Profile
from bake.profile.section import Section
from bake.profile.yaml_source import Path_


def field(path: Path_) -> FieldInfo | None:
    """The field of a value, or of the list or the names that an entry is in; None for an unknown key."""
    found, model, named = None, mapping(()), False
    for part in path:
        if isinstance(part, int) or named:
            named = False
            continue
        if model is None:
            return found
        found = model.model_fields.get(part) if part in _keys(model) else None
        model = _mapping_in(found.annotation) if found else None
        named = _is_named(found)
    return found


def _is_named(info: FieldInfo | None) -> bool:
    """Whether its entries have names that the user chooses, as channels have."""
    return info is not None and get_origin(info.annotation) is dict


def mapping(path: Path_) -> type[Section] | None:
    """The model of the mapping at `path`: of the profile, a section or an entry; None for other values."""
    if not path:
        return Profile
    found = field(path)
    return _mapping_in(found.annotation) if found else None


def known_keys(path: Path_) -> list[str]:
    """The keys that the mapping at `path` may have."""
    model = mapping(path)
    return ([] if path else ["extends"]) + (_keys(model) if model else [])


def homes(key: str) -> list[str]:
    """The dotted paths at which a key is known below the top of a profile: "root_volume.iops"."""
    inner = {name: mapping((name,)) for name in _keys(Profile)}
    return [f"{name}.{key}" for name, model in inner.items() if model and key in model.model_fields]


def extra_facts(path: Path_) -> dict[str, Any]:
    """The schema's extra facts of a field, or of the list that an entry is in."""
    info = field(path)
    found = info.json_schema_extra if info else None
    return found if isinstance(found, dict) else {}


def is_day(path: Path_) -> bool:
    """Whether a date belongs there."""
    info = field(path)
    return info is not None and info.annotation is date


def is_list(path: Path_) -> bool:
    """Whether a list belongs there."""
    info = field(path)
    return info is not None and not isinstance(path[-1], int) and get_origin(info.annotation) is tuple


def entries() -> dict[str, type[Section]]:
    """The lists of mappings, and mappings of mappings, by name, each with the model of an entry."""
    models = {name: mapping((name,)) for name in _keys(Profile)}
    return {name: model for name, model in models.items() if model and not _is_section(name)}


def top_level() -> list[str]:
    """The keys of a profile that are no sections, in the order of the schema."""
    return [name for name in _keys(Profile) if not _is_section(name)]


def _is_section(name: str) -> bool:
    return isinstance(Profile.model_fields[name].annotation, type)


def _keys(model: type[Section]) -> list[str]:
    """The keys that a file may have: a profile's name is its file's."""
    return [name for name in model.model_fields if not (model is Profile and name == "name")]


def _mapping_in(annotation: Any) -> type[Section] | None:
    """The model of an annotation such as Weights, or of the entries of tuple[Waiver, ...]."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None
