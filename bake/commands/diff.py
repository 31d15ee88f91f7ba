"""`bake diff`: what differs between two images, runs or reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse
from bake.commands.reports import complete
from bake.errors import EXIT_NOT_AGREED, UsageError

if TYPE_CHECKING:
    from bake.report.model import Changes


@click.command()
@click.argument("before", metavar="A", shell_complete=complete)
@click.argument("after", metavar="B", shell_complete=complete)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one page that opens without a network.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 where anything differs.")
@profile_and_rehearse
@click.pass_context
def diff(
    context: click.Context,
    before: str,
    after: str,
    as_json: bool,
    page: Path | None,
    exit_code: bool,
    profile: str | None,
    rehearse: bool,
) -> None:
    """Show how B differs from A: packages, kernel, driver, weights, users, units, ports, checks, and more.

    A and B are AMIs, runs, run directories or report.json files. Times are listed where they differ by ten
    seconds and by a fifth, costs by five cents and by a tenth: less is noise.

    Exit code 0, whether anything differs or not; with --exit-code 3 if something does.

    \b
    Examples:
      bake diff ami-0123456789abcdef0 ami-0fedcba9876543210
      bake diff 20261121-101500-3fa9c1 20261128-101500-0a1b2c --html diff.html
      bake diff old/report.json new/report.json --json
    """
    from contextlib import ExitStack

    from bake.commands.reports import Reports
    from bake.report.difference import difference

    obj: dict[str, Any] = context.obj
    with ExitStack() as stack:
        reports = Reports(obj, stack, profile or obj["profile"], rehearse or obj["rehearse"])
        a, b = (reports.find(name).report for name in (before, after))
    found = difference(a, b)
    if page is not None:
        from bake.report.difference_html import html

        _write(page, html(a, b))
    if as_json or obj["as_json"]:
        click.echo(found.model_dump_json(indent=2))
    elif page is None:
        click.echo(as_text(found))
    else:
        click.echo(page.absolute())
    if exit_code and found.changes:
        context.exit(EXIT_NOT_AGREED)


def _write(page: Path, text: str) -> None:
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{page} cannot be written: {error.strerror}") from error


def as_text(found: Changes) -> str:
    """The differences for a terminal, by kind. What a machine holds can't move the cursor."""
    from itertools import groupby

    from bake.report.text import line

    head = line(f"{found.before} -> {found.after}")
    if not found.changes:
        return f"{head}: nothing differs"
    lines = [f"{head}: {len(found.changes)} differ"]
    for kind, them in groupby(found.changes, key=lambda change: change.kind):
        lines += ["", kind]
        for one in them:
            sign = "+" if one.before is None else "-" if one.after is None else "~"
            values = " -> ".join(value for value in (one.before, one.after) if value is not None)
            lines.append(f"  {sign} {line(one.name, WIDE)}  {line(values, WIDE)}".rstrip())
    return "\n".join(lines)


WIDE = 200
"""Characters of a name or a value on a terminal."""
