"""`bake check`: the checks of a bake on any machine, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse, say
from bake.errors import NotVerified, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bake.checks import Check, Expectations
    from bake.checks.result import Waiver

MARKS = {"passed": "✓", "failed": "✗", "waived": "~", "not applicable": "-", "not run": "?"}


@click.command()
@profile_and_rehearse
@click.option(
    "--host", metavar="URL", help="The machine, as testinfra names it: ssh://ubuntu@192.0.2.1, docker://NAME."
)
@click.option(
    "--run",
    metavar="RUN",
    help="Expect what this run did, instead of planning the profile: its id, or its directory.",
)
@click.option("--ssh-config", type=click.Path(exists=True, dir_okay=False), help="A file for ssh(1).")
@click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False),
    help="The private key that logs in, by ssh(1).",
)
@click.option("--select", metavar="WORDS", help="Only checks whose names match: pytest's -k.")
@click.option("--path", "folder", is_flag=True, help="Print the checks' folder, for pytest itself.")
@click.option("--list", "listing", is_flag=True, help="List all checks, and ask no machine.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_obj
def check(
    obj: dict[str, Any],
    profile: str | None,
    rehearse: bool,
    host: str | None,
    run: str | None,
    ssh_config: str | None,
    identity: str | None,
    select: str | None,
    folder: bool,
    listing: bool,
    as_json: bool,
) -> None:
    """Check a machine against a profile or a run: what it is expected to be, and what it is.

    For a worker that was launched from an image, or any other machine; it changes nothing there. The user
    that logs in must be able to become root without a password. What the base AMI brought is known with
    --run alone. The profile's waivers count. Exit code 4 if a check fails.

    \b
    Examples:
      bake check --host ssh://ubuntu@192.0.2.1 --profile g6e-ubuntu
      bake check --host ssh://ubuntu@192.0.2.1 --run 20261129-030709-9572df --select "users or security"
      bake check --list
      pytest "$(bake check --path)" --hosts=ssh://ubuntu@192.0.2.1 --expect RUN/facts/expectations.json
    """
    if folder:
        from bake.checks.declare import HERE

        click.echo(HERE)
        return
    as_json = as_json or obj["as_json"]
    if listing:
        _list(as_json=as_json)
        return
    if host is None:
        raise UsageError("--host is missing", hint="such as --host ssh://ubuntu@192.0.2.1")
    expect, waivers, files = (
        _of_run(obj["runs"], run) if run else _of_profile(obj, profile, rehearse=rehearse)
    )
    found = _run(host, expect, files, select, ssh_config=ssh_config, identity=identity)
    _tell(_waived(found, waivers), as_json=as_json)


def _list(*, as_json: bool) -> None:
    from bake.checks.catalogue import checks
    from bake.columns import table

    every = [about for about, _ in checks()]
    if as_json:
        click.echo(json.dumps([about.model_dump(mode="json") for about in every], indent=2))
        return
    rows = [(about.id, about.severity, ", ".join(about.requirements), about.title) for about in every]
    click.echo(table(("check", "severity", "requirements", "title"), rows))


def _of_run(runs: Path, run: str) -> tuple[Expectations, Sequence[Waiver], Sequence[Path]]:
    from bake.checks import Expectations

    directory = Path(run) if Path(run).is_dir() else runs / run
    file = directory / "facts/expectations.json"
    if not file.exists():
        raise UsageError(
            f"{directory} does not say what its checks expected", hint="a run keeps that when it verifies"
        )
    return Expectations.read(file), _waivers(directory / "plan.json"), ()


def _waivers(plan: Path) -> list[Waiver]:
    """The waivers of the profile that a run was planned from."""
    from bake.checks.result import Waiver

    try:
        profile = json.loads(plan.read_text(encoding="utf-8"))["profile"]
        return [Waiver(**one) for one in profile.get("waivers", ())]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{plan} does not say which waivers the profile has: {error}") from error


def _of_profile(
    obj: dict[str, Any], profile: str | None, *, rehearse: bool
) -> tuple[Expectations, Sequence[Waiver], Sequence[Path]]:
    from contextlib import ExitStack

    from bake.commands.options import request_of
    from bake.progress import Tally
    from bake.request import local_cloud, lock_rehearsal, propose
    from bake.steps.verify import expected

    request = request_of(obj, profile, rehearse=rehearse)
    with ExitStack() as stack:
        cloud = local_cloud(request, stack, say)
        if cloud is not None:
            lock_rehearsal(request, cloud, say)
        proposal = propose(request, cloud, Tally())
        if proposal.unlocked:
            raise UsageError(
                f"{proposal.unlocked} ({request.lock})", hint=f"bake lock --profile {request.profile}"
            )
    plan = proposal.plan
    return expected(plan, volume=None, token=None), plan.verify.waivers, plan.verify.files


def _run(
    host: str,
    expect: Expectations,
    files: Sequence[Path],
    select: str | None,
    *,
    ssh_config: str | None,
    identity: str | None,
) -> tuple[Check, ...]:
    import dataclasses
    import tempfile

    from bake import checks

    expect = dataclasses.replace(expect, moment="booted", by_hand=True)
    with tempfile.TemporaryDirectory() as scratch:
        report = checks.run_on(
            host,
            expect,
            Path(scratch, "log"),
            select=select,
            files=files,
            ssh_config=ssh_config,
            identity=identity,
        )
    if not report.checks:
        raise UsageError(f"no check matches {select!r}", hint="bake check --list names them")
    return report.checks


def _waived(found: tuple[Check, ...], waivers: Sequence[Waiver]) -> tuple[Check, ...]:
    from datetime import UTC, datetime

    from bake.checks.waivers import waive

    return waive(found, waivers, datetime.now(UTC).date())


def _tell(found: tuple[Check, ...], *, as_json: bool) -> None:
    from bake.checks.result import red
    from bake.redaction import redact, redact_all

    bad = red(found)
    if as_json:
        told = [one.model_dump(mode="json") for one in found]
        click.echo(json.dumps(redact_all({"checks": told})["checks"], indent=2))
    else:
        click.echo(redact("\n".join(line for one in found for line in _lines(one))))
    passed = sum(one.outcome == "passed" for one in found)
    if bad:
        raise NotVerified(f"{len(bad)} of {len(found)} checks did not pass")
    say(f"{passed} of {len(found)} checks passed, none failed")


def _lines(one: Check) -> list[str]:
    """A line for a check, and more for one that did not pass."""
    lines = [f"{MARKS[one.outcome]} {one.id}: {one.about.title}"]
    match one.outcome:
        case "not applicable":
            return [f"{lines[0]} (not applicable: {one.reason})"]
        case "waived" if one.waiver:
            lines.append(
                f"    waived by {one.waiver.approved_by} until {one.waiver.until}: {one.waiver.reason}"
            )
    if one.outcome == "passed":
        return lines
    for evidence in one.evidence:
        lines += [f"    by        {_first(evidence.by)}", f"    expected  {_first(evidence.expected)}"]
        lines += [f"    found     {line}" for line in evidence.found.splitlines()]
    lines += [] if one.evidence else [f"    {line}" for line in one.reason.splitlines()]
    return [*lines, f"    why       {one.about.rationale}", f"    remedy    {one.about.remedy}"]


def _first(text: str) -> str:
    line, _, more = text.partition("\n")
    return f"{line} …" if more else line
