"""`bake schedule`: write what bakes profiles on a schedule. Nothing is created, and no secret is read."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.schedules.cron import Cron
    from bake.schedules.definition import Definition, Written

KINDS = ("github", "codebuild", "systemd")
# Option -> the kind of schedule that it is for.
OF_KIND = {"role": "github", "runner": "github", "user": "systemd", "program": "systemd"}


@click.command()
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="A profile; may be repeated.")
@click.option("--cron", required=True, metavar="FIELDS", help='When, such as "0 3 * * 1": Mondays at 03:00.')
@click.option(
    "--zone", default="UTC", show_default=True, metavar="ZONE", help="Whose clock, such as Europe/Berlin."
)
@click.option("--as", "kind", type=click.Choice(KINDS), required=True, help="What is written.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for the files. Without it: .github/workflows, this folder, or systemd.",
)
@click.option("--name", metavar="NAME", help="The schedule's name; the profile's, or `profiles`.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0.25, max=168),
    metavar="N",
    help="How long a bake may take. Without it AWS is asked for the plan, and it is twice that and an hour.",
)
@click.option("--rehearse", is_flag=True, help="Rehearse, with --as systemd.")
@click.option("--role", metavar="ARN", help="github: the role that bakes; else the variable BAKE_ROLE_ARN.")
@click.option("--runner", metavar="LABEL", help="github: the runner, or several labels with commas.")
@click.option("--no-attest", is_flag=True, help="github: attest nothing; private repositories may not.")
@click.option("--user", metavar="NAME", help="systemd: the user that bakes; else one of its own.")
@click.option("--program", metavar="PATH", help="systemd: where bake is; else where this one is.")
@click.option("--replace", is_flag=True, help="Write over files that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def schedule(obj: dict[str, Any], /, kind: str, out: Path | None, **given: Any) -> None:
    """Write a definition that bakes profiles on a schedule: a workflow, a stack, or units of systemd.

    It bakes with --if-changed and --exclusive, keeps the report, tells of a failure, and shows what
    `bake sweep` would remove. What can't work is refused, and what is left to do is told at the end. The
    profiles' variables are those of the place: of the repository, of the stack, or of .env.local.

    \b
    Examples:
      bake schedule --profile g6e-ubuntu --cron "0 3 * * 1" --zone Europe/Berlin --as systemd
      bake schedule --profile g6e-ubuntu --profile g5-ubuntu --cron "30 2 1 * *" --as github --hours 3
      bake schedule --profile g6e-ubuntu --cron "0 3 * * 1" --as codebuild --out stacks
    """
    from bake.schedules.cron import Cron

    _check_kind(kind, given)
    names = given["profiles"] or obj.get("profiles") or ()
    if not names:
        raise UsageError("--profile NAME is missing", hint="bake profiles lists them")
    cron = Cron.parse(given["cron"], given["zone"])
    definition = _definition(obj, tuple(names), kind, cron, given)
    written = _write(kind, definition)
    files = _placed(written, out)
    _save(files, replace=given["replace"])
    _tell(definition, written, files, as_json=given["as_json"] or obj["as_json"])


def _check_kind(kind: str, given: Mapping[str, Any]) -> None:
    """Raise UsageError for an option of another kind of schedule."""
    for option, whose in OF_KIND.items():
        if given[option] is not None and kind != whose:
            raise UsageError(f"--{option} is for --as {whose}, not for --as {kind}")
    if given["no_attest"] and kind != "github":
        raise UsageError(f"--no-attest is for --as github, not for --as {kind}")


def _definition(
    obj: dict[str, Any], names: tuple[str, ...], kind: str, cron: Cron, given: Mapping[str, Any]
) -> Definition:
    from bake.commands.scheduled import scheduled
    from bake.schedules.definition import Definition, check_name

    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError("\n".join(f"--profile {name} is given more than once" for name in twice))
    rehearsal = given["rehearse"] or obj["rehearse"]
    if given["hours"] is not None and math.isnan(given["hours"]):
        raise UsageError("--hours nan is no time")
    minutes = math.ceil(given["hours"] * 60) if given["hours"] else None
    program = given["program"] or shutil.which(sys.argv[0]) or sys.argv[0]
    options = {
        "role": given["role"],
        "runner": given["runner"],
        "user": given["user"],
        "program": str(Path(program).absolute()),
        "attest": "no" if given["no_attest"] else "yes",
    }
    return Definition(
        check_name(given["name"] or (names[0] if len(names) == 1 else "profiles")),
        cron,
        scheduled(obj, names, rehearsal=rehearsal, minutes=minutes, exactly=kind == "codebuild"),
        obj["directory"],
        obj["env_file"],
        rehearsal,
        options,
    )


def _write(kind: str, definition: Definition) -> Written:
    import importlib

    found: Written = importlib.import_module(f"bake.schedules.{kind}").write(definition)
    return found


def _placed(written: Written, out: Path | None) -> dict[Path, str]:
    """The files at their places: in `out`, or where their kind has them."""
    return {file if out is None else out / file.name: text for file, text in written.files.items()}


def _save(files: Mapping[Path, str], *, replace: bool) -> None:
    """Write all files, or none where one is there with other content."""
    try:
        known = {file: file.read_text("utf-8", "replace") for file in files if file.exists()}
        there = [file for file, text in known.items() if text != files[file]]
        if there and not replace:
            raise UsageError(
                "\n".join(f"{file} is there already, with other content" for file in there)
                + "\nnothing was written",
                hint="--replace writes over it, --name and --out write elsewhere",
            )
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from error


def _tell(definition: Definition, written: Written, files: Mapping[Path, str], *, as_json: bool) -> None:
    now = datetime.now(UTC)
    cron, times = definition.cron, definition.cron.next(now)
    notes = [*_warnings(definition, now), *written.notes]
    if as_json:
        told = {
            "files": [str(file) for file in files],
            "next": [when.isoformat() for when in times],
            "minutes": {one.name: one.minutes for one in definition.profiles},
            "notes": notes,
            "to_do": list(written.next),
        }
        click.echo(json.dumps(told, indent=2))
        return
    click.echo("\n".join(str(file) for file in files))
    click.echo(f"\nnext, by the clock of {cron.zone.key}:")
    for when in times:
        click.echo(f"  {when:%a %Y-%m-%d %H:%M %Z}  ({when.astimezone(UTC):%a %H:%M} UTC)")
    for title, lines in (("to know", notes), ("to do", written.next)):
        click.echo("\n".join([f"\n{title}:", *(f"  - {line}" for line in lines)]))


def _warnings(definition: Definition, now: datetime) -> Sequence[str]:
    """What the profiles and the time themselves have to be told of."""
    problems = [f"{one.name}: {problem}" for one in definition.profiles for problem in one.problems]
    shifts = list(definition.cron.shifts(now))
    gap = definition.cron.shortest_gap(now)
    if gap < timedelta(minutes=definition.minutes):
        problems.append(
            f"it fires every {gap.total_seconds() / 60:.0f} min, and a bake may take {definition.minutes}: "
            "--exclusive ends one that begins beside another"
        )
    return [*problems, *shifts]
