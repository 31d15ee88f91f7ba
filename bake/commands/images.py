"""`bake images`: the account's images that bakes made, with verdict, state, age and what changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse
from bake.errors import BakeError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from bake.commands.reports import Reports
    from bake.report.model import Change, Report

NO_REPORT = "no report here"


@dataclass(frozen=True)
class Row:
    """One image; `verdict` and `changes` are None where its report is not at hand, and `why` says so."""

    facts: Mapping[str, Any]
    report: Report | None = None
    why: str = ""
    changes: tuple[Change, ...] | None = None
    since: str = ""
    """The image that `changes` are compared with."""
    tags: Mapping[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    """The channels that serve it, each as `name`, or `name of PROFILE` of another profile than its own."""


@click.command()
@profile_and_rehearse
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, newest first.")
@click.pass_obj
def images(obj: dict[str, Any], profile: str | None, rehearse: bool, as_json: bool) -> None:
    """List the account's images that bakes made, newest first: verdict, state, age, size and what changed.

    The state is that of the AMI's tags: draft, unproven, good or revoked. The channels are those of the
    profiles here. The verdict, and what changed since the good
    image of the same profile before it, come from the reports: of runs on this machine, or from S3 where the
    profile has `reports: s3://…`. It looks in SPOT_AWS_REGION, or in the region of --profile.

    \b
    Examples:
      bake images
      bake images --profile g6e-ubuntu --json
    """
    from contextlib import ExitStack

    from bake.commands.reports import Reports

    name = profile or obj["profile"]
    with ExitStack() as stack:
        reports = Reports(obj, stack, name, rehearse or obj["rehearse"])
        rows = _with_channels(list(listed(reports, name)), obj, stack, reports)
    if as_json or obj["as_json"]:
        from bake.redaction import redact_all

        click.echo(json.dumps(redact_all([as_dict(row) for row in rows]), indent=2))
    elif rows:
        click.echo(as_table(rows))
    else:
        of_profile = f" of the profile {name}" if name else ""
        click.echo(f"there is no image{of_profile} in {reports.aws.region}")


def listed(reports: Reports, profile: str | None) -> Iterator[Row]:
    """The images, newest first, each compared with the newest good one of its profile before it."""
    from bake.image import baked, images_of, state_of

    found = images_of(reports.aws, profile, disabled=True) if profile else baked(reports.aws, disabled=True)
    rows: list[Row] = []
    good: dict[str, Row] = {}
    for facts in found:  # oldest first
        tags = {tag["Key"]: tag["Value"] for tag in facts.get("Tags", [])}
        row = _compared(_with_report(reports, facts, tags), good.get(tags.get("bake:profile", "")))
        if state_of(facts) == "good":
            good[tags.get("bake:profile", "")] = row
        rows.append(row)
    yield from reversed(rows)


def _with_channels(rows: list[Row], obj: dict[str, Any], stack: ExitStack, reports: Reports) -> list[Row]:
    """The same rows, each with the channels that serve it."""
    from dataclasses import replace

    from bake.commands import serving

    cloud = serving.local_cloud(stack) if rows and reports.rehearsal else None
    serves: dict[str, list[str]] = {}
    for profile, channel in serving.channels_here(obj, cloud) if rows else ():
        if profile.builder.region == reports.aws.region and (image := serving.held(cloud, profile, channel)):
            serves.setdefault(image, []).append(f"{channel.name} of {profile.name}")
    return [
        replace(row, channels=tuple(_short(name, row) for name in serves.get(row.facts["ImageId"], [])))
        for row in rows
    ]


def _short(name: str, row: Row) -> str:
    return name.removesuffix(f" of {row.tags.get('bake:profile')}")


def _with_report(reports: Reports, facts: Mapping[str, Any], tags: dict[str, str]) -> Row:
    try:
        found = reports.local(facts["ImageId"]) or reports.of_tags(tags)
    except BakeError as error:  # a report that is not there, or another one
        return Row(facts, why=error.message, tags=tags)
    return Row(facts, found.report, tags=tags) if found else Row(facts, why=NO_REPORT, tags=tags)


def _compared(row: Row, before: Row | None) -> Row:
    from dataclasses import replace

    from bake.report.difference import difference

    if before is None or row.report is None:
        return row
    since = str(before.facts["ImageId"])
    if before.report is None:
        return replace(row, why=f"no report of {since} before it", since=since)
    return replace(row, changes=difference(before.report, row.report).changes, since=since)


def as_table(rows: list[Row]) -> str:
    """Columns for a terminal."""
    from bake.columns import table
    from bake.report.text import line

    header = ("image", "profile", "verdict", "state", "channels", "age", "size", "changed")
    return table(header, [tuple(line(cell, 120) for cell in _cells(row)) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    told = as_dict(row)
    verdict = f"{told['verdict']} ({told['venue']})" if row.report else "-"
    size = "-" if told["size_gib"] is None else f"{told['size_gib']} GiB"
    return (
        told["image"],
        told["profile"] or "-",
        verdict,
        told["state"],
        ", ".join(row.channels) or "-",
        age(told["created"]),
        size,
        what(row),
    )


def what(row: Row) -> str:
    """What changed, on one line: how many differences of each kind."""
    if row.changes is None:
        return row.why or "the first good one"
    if not row.changes:
        return f"nothing since {row.since}"
    counted = Counter(change.kind for change in row.changes)
    return ", ".join(f"{number} {kind}" for kind, number in counted.items()) + f" since {row.since}"


def age(created: str | None) -> str:
    """How long ago, in its largest unit."""
    if not created:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return "now"


def as_dict(row: Row) -> dict[str, Any]:
    """One image as `--json` shows it."""
    from bake.image import root_of, state_of

    facts, report = row.facts, row.report
    return {
        "image": facts["ImageId"],
        "name": facts.get("Name"),
        "profile": row.tags.get("bake:profile"),
        "run": row.tags.get("bake:run"),
        "venue": report.venue.name if report else None,
        "verdict": report.verdict.state if report else None,
        "state": state_of(facts),  # type: ignore[arg-type]
        "because": row.tags.get("bake:because"),
        "channels": list(row.channels),
        "created": facts.get("CreationDate"),
        "size_gib": root_of(facts).get("VolumeSize"),
        "report": None if report else row.why,
        "since": row.since or None,
        "changes": None if row.changes is None else dict(Counter(change.kind for change in row.changes)),
    }
