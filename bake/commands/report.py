"""`bake report`: where the report of a run or an AMI is, or the report itself in one format."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse, say
from bake.commands.reports import complete

if TYPE_CHECKING:
    from pathlib import Path

    from bake.commands.reports import Found

# Of bake.report.formats, which takes longer to import than --help may.
FORMATS = ("html", "md", "json", "junit", "hdf", "sbom")


@click.command()
@click.argument("run", metavar="[RUN|AMI]", required=False, shell_complete=complete)
@click.option("--open", "opened", is_flag=True, help="Open the HTML in the browser.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Print the report in this format.")
@profile_and_rehearse
@click.pass_obj
def report(
    obj: dict[str, Any],
    run: str | None,
    opened: bool,
    form: str | None,
    profile: str | None,
    rehearse: bool,
) -> None:
    """Show the report of a run or an AMI: its verdict and where its HTML is, or all of it in one format.

    Without RUN it is the newest run's. Of a run that goes on or was cut, the report as far as it came is made
    now. An AMI that no run on this machine made is looked up in its tags: its report is fetched from S3 and
    shown only if it has the SHA-256 that the tags name.

    \b
    Examples:
      bake report                                     the newest run
      bake report 20261128-101500-3fa9c1 --open
      bake report ami-0123456789abcdef0               also where another machine baked it
      bake report ami-0123456789abcdef0 --format md   for a pull request
    """
    from contextlib import ExitStack

    from bake.commands.reports import Reports
    from bake.report.formats import render

    with ExitStack() as stack:
        reports = Reports(obj, stack, profile or obj["profile"], rehearse or obj["rehearse"])
        found = reports.find(run)
    if form:
        sys.stdout.write(render(found.report, form, found.directory))
        return
    page = page_of(found)
    click.echo(f"{sentence(found)}\n{page}")
    if opened and click.launch(str(page)):
        say(f"no browser could be started: open {page} yourself")


def page_of(found: Found) -> Path:
    """The HTML of a report; made now where it was fetched, or nobody has made it yet."""
    from bake.report.formats import PAGE, render

    page = found.directory / PAGE
    if not page.is_file():
        page.write_text(render(found.report, "html", found.directory), encoding="utf-8")
    return page.absolute()


def sentence(found: Found) -> str:
    """The verdict, on one line: where it was baked comes first."""
    from bake.report.text import line

    report = found.report
    return line(f"{report.venue.name} {report.verdict.state}: {report.verdict.sentence}")
