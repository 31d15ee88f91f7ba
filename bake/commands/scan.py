"""`bake scan`: hand the SBOM of a run's image to a scanner, and keep the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import say
from bake.errors import BakeError, NotVerified

if TYPE_CHECKING:
    from pathlib import Path

    from bake.journal import Record
    from bake.report.model import Scan, Vulnerability
    from bake.report.scan import Answer, Bom

INSTALL = "install it (https://github.com/anchore/grype#installation) and call bake scan again"


@click.command()
@click.argument("run")
@click.option(
    "--fail-on",
    type=click.Choice(["critical", "high", "medium", "low"]),
    help="Fail from this severity on, whatever the profile says (fail_on).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def scan(obj: dict[str, Any], run: str, fail_on: str | None, as_json: bool) -> None:
    """Look for known vulnerabilities of the packages of a run's image, by its SBOM.

    It asks grype if that is on PATH, else Amazon Inspector, for which the right inspector-scan:ScanSbom is
    needed; for a rehearsal it asks grype alone. The answer is kept in the run's directory, with the date of
    the scanner's database and what the scanner does not cover, such as programs without a package.

    Exit code 4 if a vulnerability of the severity `fail_on` of the profile, or a worse one, is not waived
    there. A waiver that has ended does not count, and unknown severities never fail.

    \b
    Examples:
      bake scan 20261128-101500-3fa9c1
      bake scan 20261128-101500-3fa9c1 --fail-on high
      bake scan 20261128-101500-3fa9c1 --json
    """
    from bake.commands.runs import record_of
    from bake.report.scan import failing
    from bake.report.writing import write
    from bake.run import alone

    record = record_of(obj["runs"], run)
    with alone(record.directory):
        found = _scan(record, fail_on)
        _keep(record.directory, found)
        write(record.directory, say)
    click.echo(found.model_dump_json(indent=2) if as_json or obj["as_json"] else _table(record, found))
    if not found.covered:
        raise BakeError(
            f"{found.scanner} covers no package of this image: that it found nothing says nothing"
        )
    if failed := failing(found):
        raise NotVerified(_failure(failed, found), hint="update the packages, or waive them in the profile")


def _scan(record: Record, fail_on: str | None) -> Scan:
    from bake.checks.result import Waiver
    from bake.report.scan import Bom, concluded

    bom = Bom.read(record.directory)
    profile = _plan(record.directory)["profile"]
    waivers = [Waiver.model_validate(waiver) for waiver in profile.get("waivers", ())]
    answer = _ask(record, bom, profile["builder"]["region"])
    return concluded(bom, answer, waivers, fail_on or profile.get("fail_on"))


def _plan(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    return found


def _ask(record: Record, bom: Bom, region: str) -> Answer:
    """Ask the scanner that is there."""
    from bake.report import grype
    from bake.report.scan import SBOM

    if (program := grype.program()) is not None:
        return grype.ask(program, record.directory / SBOM, bom)
    if record.begun["rehearsal"]:
        raise BakeError(
            "there is no scanner: grype is not on PATH, and a rehearsal asks no AWS", hint=INSTALL
        )
    return _ask_inspector(bom, region)


def _ask_inspector(bom: Bom, region: str) -> Answer:
    from bake.aws import Aws, call_errors, error_code
    from bake.report import inspector

    try:
        return inspector.ask(Aws(region=region, worker_region=region), bom)
    except BakeError as error:
        error.add_note(f"Amazon Inspector was asked, for grype is not on PATH; {INSTALL}")
        raise
    except call_errors() as error:
        why = error_code(error) or type(error).__name__
        raise BakeError(
            f"there is no scanner: grype is not on PATH, and Amazon Inspector in {region} answered {why}",
            hint=f"allow inspector-scan:ScanSbom for Inspector; or grype: {INSTALL}",
        ) from error


def _keep(directory: Path, found: Scan) -> None:
    from bake.redaction import redact
    from bake.report.scan import FILE

    file = directory / FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(redact(found.model_dump_json(indent=2)) + "\n", encoding="utf-8")


def _table(record: Record, found: Scan) -> str:
    from bake.columns import table
    from bake.report.text import line

    venue = "REHEARSAL" if record.begun["rehearsal"] else "AWS"
    known = found.vulnerabilities
    lines = [
        f"{venue} {record.id}: {_number(known)} by {found.scanner} {found.version},"
        f" whose database is of {found.database}",
        f"covered: {', '.join(found.covered) or 'nothing'}",
        *(f"not covered: {line(kind)}" for kind in found.not_covered),
    ]
    if known:
        header = ("severity", "id", "package", "version", "fixed in", "waived until")
        lines.append(table(header, [_cells(one) for one in known]))
    return "\n".join(lines)


def _number(known: tuple[Vulnerability, ...]) -> str:
    return "1 vulnerability" if len(known) == 1 else f"{len(known):,} vulnerabilities"


def _cells(one: Vulnerability) -> tuple[str, ...]:
    from bake.report.text import line

    until = str(one.waiver.until) if one.waiver else "-"
    texts = (one.severity, one.id, one.package, one.version, one.fixed_in or "-")
    return (*(line(text, 60) for text in texts), until)


def _failure(failed: tuple[Vulnerability, ...], found: Scan) -> str:
    from bake.report.text import line

    names = sorted({line(one.id, 60) for one in failed})
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (
        f"{_number(failed)} of severity {found.fail_on} or worse, not waived: {', '.join(names[:10])}{more}"
    )
