"""Write docs/reference.md from the commands' help, the profiles' schema and the checks' docstrings.

`make docs` runs it; a test fails while the page is not what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference.md"
WIDTH = 100

INTRODUCTION = """\
# Reference

`make docs` writes this page from the program: do not edit it.

- [`bake`](#bake), [`bake local`](#bake-local): the commands
- [`flux-worker`](#flux-worker): the worker's commands; [worker/README.md](../worker/README.md) explains them
- [Keys of a profile](#keys-of-a-profile): the schema; [profiles.md](profiles.md) explains it
- [Checks](#checks): what a bake verifies; [requirements.md](requirements.md) explains the ids
- [Statements of the policies](#statements-of-the-policies): what `bake iam` allows, and why
"""
PROFILE = """\
## Keys of a profile

Every value may also be a reference: `${NAME}`, `${NAME:-default}` or `secretsmanager:NAME#KEY`. A value
marked "reference only" must be one, because it differs between accounts or is secret; the usual variable is
given. `extends` names another profile of the same folder, whose values hold where this one says nothing.
"""
VERIFY = """\
## Checks

What a bake verifies, on the builder before the seal; [reports.md](reports.md) explains outcomes and waivers.
The checks that are marked "booted" look once more at an instance of the finished AMI, and `bake check` runs
all but a few on any machine. Those marked "step" are made by a step of the bake: they need a login, AWS or a
job. A failure of any severity stands in the way of the image, unless it is waived.
"""


def page() -> str:
    """The whole page."""
    from bake.cli import main_group
    from docs import policies
    from flux_worker.cli import main as worker

    return "\n".join(
        [
            INTRODUCTION,
            *commands(main_group, "bake"),
            *commands(worker, "flux-worker"),
            PROFILE,
            *sections(),
            *no_sections(),
            VERIFY,
            *checks(),
            *policies.tables(),
        ]
    )


def commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    """Each command's help under a heading of its own, those of a group after it."""
    context = click.Context(
        command,
        parent=parent,
        info_name=name.split()[-1],
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )
    yield f"{'##' if parent is None else '###'} {name}\n\n```output\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}", context)


def sections() -> Iterator[str]:
    """A table for each section of a profile."""
    from bake.profile import json_schema
    from bake.profile.schema import Profile, sections

    definitions = json_schema.build()["$defs"]
    for name, model in sections().items():
        definition = definitions[model.__name__]
        optional = "" if Profile.model_fields[name].is_required() else " May be left out."
        yield f"### {name}\n\n{definition['description']}{optional}\n"
        yield from table(model, definition["properties"])


def no_sections() -> Iterator[str]:
    """A table of the keys that stand in no section, and one for the entries of each list of mappings."""
    from bake.profile import fields, json_schema
    from bake.profile.schema import Profile

    schema = json_schema.build()
    yield "### In no section\n\nThese stand beside the sections. Each may be left out.\n"
    yield from table(Profile, {name: schema["properties"][name] for name in fields.top_level()})
    for name, model in fields.entries().items():
        definition = schema["$defs"][model.__name__]
        yield f"### Entries of {name}\n\n{definition['description']}\n"
        yield from table(model, definition["properties"])


def table(model: type[BaseModel], properties: dict[str, Any]) -> Iterator[str]:
    """A row for each key of a mapping, by its JSON Schema."""
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for key, field in properties.items():
        required = model.model_fields[key].is_required()
        default = "required" if required else shown(field.get("default"))
        cells = (f"`{key}`", values(field), default, field["description"])
        yield f"| {' | '.join(map(cell, cells))} |"
    yield ""


def values(field: dict[str, Any]) -> str:
    """The values that a field takes, in words."""
    from bake.profile.json_schema import REFERENCE

    if "patternProperties" in field:
        return "mapping of mappings, by names of your own"
    kinds = [kind for kind in field["anyOf"] if kind not in ({"type": "null"}, REFERENCE)]
    words = [one(kind) for kind in kinds]
    variables = [f"`{name}`" for name in field.get("examples", [])]
    if variables:
        literal = any("enum" not in kind for kind in kinds)
        words.append(f"{'usually' if literal else 'reference only:'} {variables[0]}")
    return ", or ".join(words)


def one(kind: dict[str, Any]) -> str:
    """One kind of value."""
    if "const" in kind:
        return f"`{kind['const']}`"
    if "enum" in kind:
        return ", ".join(f"`{word}`" for word in kind["enum"])
    match kind.get("type"):
        case "integer":
            most = f"{kind['minimum']:,} to {kind['maximum']:,}" if "maximum" in kind else ""
            return most or f"{kind['minimum']:,} or more"
        case "boolean":
            return "`true`, `false`"
        case "array" if "$" in str(kind["items"].get("pattern")):
            return "list of references"
        case "array" if "$ref" in kind["items"]:
            return "list of mappings"
        case "string" if kind.get("format") == "date":
            return "date, such as 2027-01-31"
        case "array":
            entries = [one(entry) for entry in kind["items"].get("anyOf", []) if "pattern" in entry]
            return f"list of {entries[0]}"
    return "text"


def shown(default: Any) -> str:
    """A default as a profile would have it."""
    if default is None or default == []:
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`".replace("'", "")


def checks() -> Iterator[str]:
    """A table for each group of checks."""
    from bake.checks.case_list import CASES
    from bake.checks.catalogue import checks
    from bake.checks.result import GROUPS

    every = [*checks(), *((about, ("step",)) for about in CASES.values())]
    for group in GROUPS:
        yield f"### Checks: {group}\n"
        yield "| check | severity | what holds | why | ids |\n|---|---|---|---|---|"
        for about, moments in every:
            if about.group == group:
                when = "booted" if "booted" in moments else "step" if "step" in moments else ""
                severity = f"{about.severity}, {when}" if when else about.severity
                ids = ", ".join([*about.requirements, *([f"CIS {about.cis}"] if about.cis else [])])
                cells = (f"`{about.id}`", severity, about.title, about.rationale, ids)
                yield f"| {' | '.join(map(cell, cells))} |"
        yield ""


def cell(text: str) -> str:
    """Text that can stand in a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
