"""The commands `bake profiles` and `bake new-profile`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from bake.errors import UsageError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, by name.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of profiles, for editors.")
@click.pass_obj
def profiles(obj: dict[str, Any], as_json: bool, schema: bool) -> None:
    """List the profiles. No variable needs to be set for that.

    \b
    Examples:
      bake profiles
      bake profiles --schema > profiles/schema.json
    """
    if schema:
        from bake.profile.json_schema import as_text

        click.echo(as_text(), nl=False)
        return
    from bake.profile import names, require_folder

    directory: Path = obj["directory"]
    require_folder(directory)
    rows = {name: _summary(name, directory) for name in names(directory)}
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = [(name, *row.values()) for name, row in rows.items()]
    whole = [row for row in table if len(row) > 2]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    for line in table:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)]
        click.echo("  ".join(cells if len(line) > 2 else line).rstrip())


def _summary(name: str, directory: Path) -> dict[str, str]:
    """What a profile says, as far as can be told without variables."""
    from bake.profile import outline
    from bake.profile.yaml_source import printable

    try:
        said = outline(name, directory)
    except UsageError as error:
        return {"problem": error.message.splitlines()[0]}

    def text(section: str, key: str, otherwise: str = "?") -> str:
        content = said.get(section)
        value = content.get(key) if isinstance(content, dict) else None
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return otherwise if value is None else printable(words, 60)

    return {
        "os": text("base", "os"),
        "accelerator": text("base", "accelerator"),
        "instance_type": text("builder", "instance_type", text("builder", "instance_types")),
        "root_volume": f"{text('root_volume', 'size_gib')} GiB {text('root_volume', 'type')}",
        "precision": text("weights", "precision", "bf16"),
    }


@click.command("new-profile")
@click.argument("name")
@click.option("--from", "source", metavar="PROFILE", required=True, help="The profile to start from.")
@click.pass_obj
def new_profile(obj: dict[str, Any], name: str, source: str) -> None:
    """Start a profile that extends another; what it may say otherwise stands in it as comments.

    \b
    Example:
      bake new-profile g6e-large --from g6e-ubuntu
    """
    from bake.profile import outline

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,47}", name):
        raise UsageError(
            f"{name!r} is not a valid profile name", hint="small letters, digits and hyphens, at most 48"
        )
    file = obj["directory"] / f"{name}.yaml"
    text = _start(name, source, outline(source, obj["directory"]))
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError(f"{file} is there already") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"{file}\nnext: edit it, then bake plan --profile {name}")


def _start(name: str, source: str, said: dict[str, Any]) -> str:
    import yaml

    lines = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100).splitlines()
    return "\n".join(
        [
            "# yaml-language-server: $schema=schema.json",
            f"# {name}: as {source}, but for what is said below.",
            "",
            f"extends: {source}",
            "",
            "# Uncomment, with its section, what shall differ; leave the rest to be taken over.",
            "#",
            *(f"# {line}".rstrip() for line in lines),
            "",
        ]
    )
