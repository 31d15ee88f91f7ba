"""`bake init`: a folder to bake from, with example profiles. It needs no AWS and reads no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bake import resources
from bake.errors import UsageError

IGNORED = (".bake/", ".env.local")
GITIGNORE = "# Runs with their logs, and variables with secrets.\n" + "".join(f"{line}\n" for line in IGNORED)
CI_FILES = {"github": Path(".github/workflows/bake.yml")}
NEXT = """\
next, without AWS, on this machine:
  sudo "$(command -v bake)" --profile g6e-ubuntu --rehearse
next, on AWS:
  cp .env.example .env.local             and fill it in
  bake lock --profile g6e-ubuntu         pin the weights
  bake plan --profile g6e-ubuntu         see what a bake would do
  bake approve --profile g6e-ubuntu      agree to it
  bake --profile g6e-ubuntu
"""


@click.command()
@click.option("--ci", type=click.Choice(sorted(CI_FILES)), help="Write a workflow that rehearses, too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object with the files.")
@click.pass_obj
def init(obj: dict[str, Any], ci: str | None, as_json: bool) -> None:
    """Start a folder to bake from: example profiles, .env.example and .gitignore.

    No file is ever overwritten: where one is there with other content, nothing is written at all.

    \b
    Example:
      mkdir images && cd images && bake init
      bake init --ci github
    """
    found = _files(obj["directory"], ci)
    new = {file: content for file, content in found.items() if not _is_there(file, content)}
    _refuse(new)
    for file, content in new.items():
        _write(file, content)
    if as_json or obj["as_json"]:
        kept = [str(file) for file in found if file not in new]
        click.echo(json.dumps({"written": [str(file) for file in new], "kept": kept}, indent=2))
        return
    for file in found:
        click.echo(f"{file}{'' if file in new else '    was there'}")
    click.echo(f"\n{NEXT}", nl=False)


def _files(profiles: Path, ci: str | None) -> dict[Path, str]:
    """What a new folder holds."""
    examples = [
        file
        for file in sorted(resources.EXAMPLES.iterdir())
        if file.suffix in (".yaml", ".json") and not resources.holds_agreement(file)
    ]
    found = {profiles / file.name: file.read_text(encoding="utf-8") for file in examples}
    found[Path(".env.example")] = resources.ENV_EXAMPLE.read_text(encoding="utf-8")
    found[Path(".gitignore")] = GITIGNORE
    if ci is not None:
        found[CI_FILES[ci]] = Path(__file__).with_name(f"init-{ci}.yaml").read_text(encoding="utf-8")
    return found


def _is_there(file: Path, content: str) -> bool:
    """Whether the file says already what it must; a .gitignore may say more."""
    if not file.is_file():
        return False
    there = file.read_text(encoding="utf-8", errors="replace")
    return set(IGNORED) <= set(there.split()) if file.name == ".gitignore" else there == content


def _refuse(new: dict[Path, str]) -> None:
    taken = [file for file in new if file.exists() or file.is_symlink()]
    if not taken:
        return
    hints = []
    if Path(".gitignore") in taken:
        hints.append(f"add to .gitignore: {' '.join(IGNORED)}")
    if others := [str(file) for file in taken if file.name != ".gitignore"]:
        hints.append(f"move {', '.join(others)} away, or start in an empty folder")
    raise UsageError(
        "\n".join(f"{file} is there already, with other content" for file in taken) + "\nnothing was written",
        hint="; ".join(hints) + "; then run bake init again",
    )


def _write(file: Path, content: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
