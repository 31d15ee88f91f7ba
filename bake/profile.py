"""YAML -> Profile: every problem at once, each with file, line and column."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from bake import marks
from bake.errors import UsageError

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
FLUX = "black-forest-labs/FLUX.1-dev"


class Section(BaseModel):
    """A mapping of the profile: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# These differ from account to account or are secret, so they never stand in a profile (R-CONFIG).
FromEnvironment = Annotated[str, Field(min_length=1, json_schema_extra={"from_environment": True})]


class Base(Section):
    """The AMI to start from; the user chooses it (R-AMI)."""

    ami: FromEnvironment = Field(pattern=r"^ami-[0-9a-f]{8,17}$")
    os: Literal["ubuntu"]
    accelerator: Literal["cuda"]


class Builder(Section):
    """The instance that bakes. Nothing here has a default: it is the user's infrastructure (R-AGREE)."""

    region: FromEnvironment = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    instance_type: str = Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")
    subnet: FromEnvironment = Field(pattern=r"^subnet-[0-9a-f]{8,17}$")
    security_group: FromEnvironment = Field(pattern=r"^sg-[0-9a-f]{8,17}$")
    instance_profile: FromEnvironment


class RootVolume(Section):
    """The root EBS volume, of the builder and of the image (R-DISK)."""

    size_gib: int = Field(ge=1, le=65536)
    type: Literal["gp3"]


class Weights(Section):
    """What is prefetched, and where to (R-CACHE)."""

    repo: str = FLUX
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    cache: str = "~/.cache/huggingface/hub"
    token: SecretStr = Field(min_length=1, json_schema_extra={"from_environment": True})


class Worker(Section):
    """Where the booted worker finds its queue and event bus; not where it runs (R-REGIONS)."""

    region: FromEnvironment = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")


class Image(Section):
    """What the AMI is called; `{profile}` and `{run}` are filled in."""

    name: str = Field(min_length=3, max_length=100)


class Profile(Section):
    """A profile as the bake uses it: typed, complete, frozen."""

    name: str
    base: Base
    builder: Builder
    root_volume: RootVolume
    weights: Weights
    worker: Worker
    image: Image


def names(directory: Path) -> list[str]:
    """The profiles in `directory`, by name."""
    return sorted(file.stem for file in directory.glob("*.yaml") if not file.name.endswith(".lock.yaml"))


def environment(env_file: Path | None) -> dict[str, str]:
    """The process's environment over `env_file` (`.env.local`): what is exported wins."""
    stored = dotenv_values(env_file) if env_file is not None and env_file.exists() else {}
    return {key: value for key, value in {**stored, **os.environ}.items() if value is not None}


def load(name: str, directory: Path, variables: Mapping[str, str]) -> Profile:
    """Read `directory/name.yaml` with `${NAME}` filled in from `variables`.

    Raises UsageError with every problem of the file in one message.
    """
    file = directory / f"{name}.yaml"
    if name not in names(directory):
        known = names(directory)
        close = difflib.get_close_matches(name, known, 1)
        raise UsageError(
            f"no profile named {name!r} in {directory}; there are: {', '.join(known) or 'none'}",
            hint=f"did you mean --profile {close[0]}?" if close else None,
        )
    document = marks.read(file)
    missing: dict[str, marks.Mark] = {}
    filled = _fill(document, document.value, (), variables, missing)
    profile = _validate(document, name, filled) if isinstance(filled, dict) else None
    _report(document, missing)
    assert profile is not None  # whatever made it None was reported just above
    return profile


def _report(document: marks.Document, missing: Mapping[str, marks.Mark]) -> None:
    lines = [str(problem) for problem in sorted(document.problems, key=lambda problem: problem.mark)]
    if missing:
        lines.append(f"{document.file}: variables that are not set:")
        lines += [f"    {name} (line {mark.line})" for name, mark in missing.items()]
    if lines:
        raise UsageError(
            "\n".join(lines),
            hint="set them in the environment or in .env.local" if missing else None,
        )


def _fill(
    document: marks.Document,
    value: Any,
    path: marks.Path_,
    variables: Mapping[str, str],
    missing: dict[str, marks.Mark],
) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every string below `value`."""
    if isinstance(value, dict):
        return {key: _fill(document, item, (*path, key), variables, missing) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(document, item, (*path, index), variables, missing) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        found = variables.get(match[1]) or match[2]
        if found is None:
            missing.setdefault(match[1], document.mark(path))
            return match[0]
        return found

    return VARIABLE.sub(one, value)


def _validate(document: marks.Document, name: str, filled: dict[str, Any]) -> Profile | None:
    for path in _literal_secrets(document.value):
        document.problem(
            path,
            "must come from the environment, not from the file",
            "write ${NAME} here and set NAME in the environment or in .env.local",
        )
    try:
        profile = Profile.model_validate({"name": name, **filled})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            _add(document, item)
        return None
    if profile.weights.repo != FLUX:
        document.problem(("weights", "repo"), f"must be {FLUX}: this pipeline serves that model and no other")
    if not profile.weights.cache.startswith(("/", "~/")):
        document.problem(("weights", "cache"), "must be an absolute path or start with ~/")
    for placeholder in re.findall(r"\{[^}]*\}?|\}", profile.image.name):
        if placeholder not in ("{profile}", "{run}"):
            document.problem(
                ("image", "name"), f"unknown placeholder {placeholder}", "there are {profile} and {run}"
            )
    return profile


def _literal_secrets(value: Mapping[str, Any]) -> list[marks.Path_]:
    """The fields that must name a variable and do not."""
    found: list[marks.Path_] = []
    for section, model in _sections().items():
        content = value.get(section)
        if not isinstance(content, dict):
            continue
        for key, info in model.model_fields.items():
            extra = info.json_schema_extra
            if isinstance(extra, dict) and extra.get("from_environment"):
                text = content.get(key)
                if text is not None and not VARIABLE.search(str(text)):
                    found.append((section, key))
    return found


def _sections() -> dict[str, type[BaseModel]]:
    return {
        name: info.annotation
        for name, info in Profile.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    }


def _add(document: marks.Document, item: Mapping[str, Any]) -> None:
    """Say one pydantic error in the words of the profile."""
    path: marks.Path_ = tuple(item["loc"])
    value = item.get("input")
    if isinstance(value, str) and VARIABLE.search(value):
        return  # a missing variable, reported with the others
    match item["type"]:
        case "extra_forbidden":
            known = _known_keys(path[:-1])
            close = difflib.get_close_matches(str(path[-1]), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            document.problem(path, "unknown key", hint, at_key=True)
        case "missing":
            document.problem(path, "is missing")
        case "string_pattern_mismatch":
            document.problem(path, f"{value!r} does not look like {_looks(item['ctx']['pattern'])}")
        case _:
            document.problem(path, f"{item['msg'][0].lower()}{item['msg'][1:]}, not {_shown(path, value)}")


def _shown(path: marks.Path_, value: Any) -> str:
    return "this" if "token" in path or isinstance(value, dict | list) else repr(value)


def _looks(pattern: str) -> str:
    examples = {
        "ami": "an AMI id (ami-0123456789abcdef0)",
        "subnet": "a subnet id (subnet-0123456789abcdef0)",
        "sg": "a security group id (sg-0123456789abcdef0)",
        "[0": "a commit (40 hexadecimal digits)",
        "[a-z]{2}": "a region (eu-north-1)",
        "[a-z][": "an instance type (g6e.xlarge)",
    }
    for start, text in examples.items():
        if pattern.startswith(f"^{start}"):
            return text
    return pattern


def _known_keys(path: marks.Path_) -> list[str]:
    if not path:
        return list(_sections())
    model = _sections().get(str(path[0]))
    return list(model.model_fields) if model else []
