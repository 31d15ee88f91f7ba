"""`bake check`: the checks of a bake on any machine, by hand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse, say
from bake.errors import NotVerified, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bake.checks import Check, Expectations
    from bake.checks.result import Waiver

OVER_SSH = ("ssh", "safe-ssh")
OWN_WAY = re.compile(r"^\s*Proxy(Command|Jump)\b", re.IGNORECASE | re.MULTILINE)
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
    --run alone. The profile's waivers count, and its builder.proxy_command leads to the machine, unless
    --ssh-config names a proxy. Exit code 4 if a check fails.

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
    wanted = _of_run(obj["runs"], run) if run else _of_profile(obj, profile, rehearse=rehearse)
    found = _run(host, wanted, select, ssh_config=ssh_config, identity=identity)
    _tell(_waived(found, wanted.waivers), as_json=as_json)


@dataclass(frozen=True)
class _Wanted:
    """What is expected of a machine, and the words of the command that leads to it, if any."""

    expect: Expectations
    waivers: Sequence[Waiver]
    files: Sequence[Path] = ()
    proxy: tuple[str, ...] = ()


def _list(*, as_json: bool) -> None:
    from bake.checks.catalogue import checks
    from bake.columns import table

    every = [about for about, _ in checks()]
    if as_json:
        click.echo(json.dumps([about.model_dump(mode="json") for about in every], indent=2))
        return
    rows = [(about.id, about.severity, ", ".join(about.requirements), about.title) for about in every]
    click.echo(table(("check", "severity", "requirements", "title"), rows))


def _of_run(runs: Path, run: str) -> _Wanted:
    from bake.checks import Expectations

    directory = Path(run) if Path(run).is_dir() else runs / run
    file = directory / "facts/expectations.json"
    if not file.exists():
        raise UsageError(
            f"{directory} does not say what its checks expected", hint="a run keeps that when it verifies"
        )
    waivers, proxy = _planned(directory / "plan.json")
    return _Wanted(Expectations.read(file), waivers, proxy=proxy)


def _planned(plan: Path) -> tuple[list[Waiver], tuple[str, ...]]:
    """The waivers of the profile that a run was planned from, and the command that led to its builder."""
    from bake.checks.result import Waiver

    try:
        content = json.loads(plan.read_text(encoding="utf-8"))
        waivers = [Waiver(**one) for one in content["profile"].get("waivers", ())]
        return waivers, tuple(content.get("reach", {}).get("proxy", ()))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{plan} does not say which waivers the profile has: {error}") from error


def _of_profile(obj: dict[str, Any], profile: str | None, *, rehearse: bool) -> _Wanted:
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
    expect = expected(plan, volume=None, token=None)
    return _Wanted(expect, plan.verify.waivers, plan.verify.files, plan.launch.reach.proxy)


def _way(words: Sequence[str], url: str, ssh_config: str | None) -> tuple[str, ...]:
    """The profile's command for this machine; empty where it is reached in another way."""
    from urllib.parse import urlsplit

    from bake.profile import proxy

    where = urlsplit(url)
    if not words or where.scheme not in OVER_SSH or (ssh_config and OWN_WAY.search(_text(ssh_config))):
        return ()
    host = where.hostname or ""
    by_id = any("{instance}" in proxy.placeholders(word) for word in words)
    if by_id and not re.fullmatch(r"i-[0-9a-f]{8,17}", host):
        raise UsageError(
            f"builder.proxy_command leads to {{instance}}, and {url} names none",
            hint="such as --host ssh://ubuntu@i-0123456789abcdef0; or name a ProxyCommand in --ssh-config",
        )
    return proxy.filled(words, instance=host, host=host, port=where.port or 22)


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8", errors="replace")


def _run(
    host: str, wanted: _Wanted, select: str | None, *, ssh_config: str | None, identity: str | None
) -> tuple[Check, ...]:
    import dataclasses
    import tempfile

    from bake import checks

    expect = dataclasses.replace(wanted.expect, moment="booted", by_hand=True)
    proxy = _way(wanted.proxy, host, ssh_config)
    with tempfile.TemporaryDirectory() as scratch:
        report = checks.run_on(
            host,
            expect,
            Path(scratch, "log"),
            select=select,
            files=wanted.files,
            ssh_config=ssh_config,
            identity=identity,
            proxy=proxy,
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
