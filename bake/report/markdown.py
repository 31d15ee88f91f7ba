"""A report as Markdown, for a comment of a pull request and for GitHub's summary of a step.

Texts of machines are written by others: every character that Markdown or HTML could take for markup is
written as a character reference, which stays text wherever it stands. `@` and `#` are followed by a word
joiner, since GitHub looks for mentions and issues in the text that it shows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bake.checks.result import GROUPS, SEVERITIES, Waiver
from bake.costs import dollars
from bake.report import cold_start
from bake.report.text import line

if TYPE_CHECKING:
    from bake.checks.result import Check
    from bake.report.model import Change, Report

COMMENT = 65_000
"""Characters; GitHub refuses comments of more than 65,536."""
SUMMARY = 1 << 20
"""Bytes of all summaries of a step (GitHub)."""
CELL = 160
LONG = 600
MARKUP = re.compile(
    r"[#$&*<>@\[\\\]`|~]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is none
    r"|:(?=//)|(?<=www)\.",  # GitHub makes links of addresses
    re.IGNORECASE,
)
"""What is markup within a line; no text of a machine begins one."""
ORDER = ("failed", "not run", "waived", "not applicable", "passed")
SIGNS = {"failed": "❌", "not run": "⚠️", "waived": "📝", "not applicable": "➖", "passed": "✅"}


@dataclass
class Section:
    """A heading with a table or a list; `rows` can be cut, and what is left out is counted."""

    title: str
    rows: list[str]
    header: tuple[str, ...] = ()
    folded: bool = True
    shown: int = field(default=1_000_000)

    def lines(self) -> Iterator[str]:
        """The section as Markdown."""
        yield from ["<details>", f"<summary>{self.title}</summary>", ""] if self.folded else [self.title, ""]
        if self.header:
            yield f"| {' | '.join(self.header)} |"
            yield f"|{' --- |' * len(self.header)}"
        yield from self.rows[: self.shown]
        if (left_out := len(self.rows) - self.shown) > 0:
            yield f"\n{left_out:,} more are in the whole report."
        yield from ["", "</details>", ""] if self.folded else [""]


def markdown(report: Report) -> str:
    """The report in fewer than 65,000 characters; where it has more, the longest tables are cut."""
    head = [*_head(report), ""]
    sections = [section for section in _sections(report) if section.rows]
    foot = _foot(report)
    while len(text := _joined(head, sections, foot)) >= COMMENT:
        longest = max(sections, key=lambda one: sum(map(len, one.rows[: one.shown])))
        longest.shown = min(longest.shown, len(longest.rows)) // 2
    return text


def summarize(report: Report, environ: Mapping[str, str] = os.environ) -> None:
    """Append the report to the file that GITHUB_STEP_SUMMARY names, if there is room; never fail the bake."""
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    content = markdown(report).encode("utf-8", "replace") + b"\n"
    try:
        with Path(name).open("ab") as file:
            if file.tell() + len(content) <= SUMMARY:
                file.write(content)
    except (OSError, ValueError):
        return


def text(value: str, limit: int = CELL) -> str:
    """A text of a machine on one line, with nothing in it that Markdown, HTML or GitHub reads."""
    escaped = MARKUP.sub(_reference, line(value, limit))
    if len(escaped) > 2 * limit:  # nearly all of it is markup
        escaped = MARKUP.sub(_reference, line(value, limit // 4))
    return escaped


def code(value: str, limit: int = CELL) -> str:
    """The same, set as code: for commands and names."""
    return f"<code>{text(value, limit)}</code>" if value else ""


def _reference(found: re.Match[str]) -> str:
    joiner = "\u2060" if found[0] in "@#" else ""
    return f"&#{ord(found[0])};{joiner}"


def _joined(head: Sequence[str], sections: Sequence[Section], foot: Sequence[str]) -> str:
    return "\n".join([*head, *(one for section in sections for one in section.lines()), *foot]) + "\n"


def _head(report: Report) -> Iterator[str]:
    run, verdict = report.run, report.verdict
    yield f"## {report.venue.name}: {text(run.profile)}, {verdict.state}"
    yield ""
    yield f"**{text(verdict.sentence, LONG)}**"
    if verdict.error:
        yield f"\nError: {text(verdict.error, LONG)}"
    if verdict.hint:
        yield f"\nWhat to do: {text(verdict.hint, LONG)}"
    for left in verdict.left_behind[:10]:
        yield f"\nLeft behind: {text(left, LONG)}"
    yield ""
    yield from _facts(report)


def _facts(report: Report) -> Iterator[str]:
    run, image, base = report.run, report.image, report.base
    yield f"- Image: {f'{code(image.id)}, {code(image.name)}' if image else 'none was made'}"
    if base:
        yield f"- Base: {code(base.id)}, {text(base.name)}"
    if held := report.attestation:
        yield f"- Holds: {code(f'sha256:{held.digest}')}, {text(held.signed)}"
    yield f"- Checks: {_count(report.checks)}"
    where = f"account {text(run.account)}, " if run.account else ""
    yield f"- Run: {code(run.id)}, plan {code(run.plan)}, bake {text(run.bake_version)}"
    yield f"- Where: {where}{text(run.region)}"
    yield f"- When: {text(run.started)} to {text(run.finished or 'now')}{_cost(report)}"
    if report.last_good:
        yield f"- Last good image: {text(report.last_good, LONG)}"


def _count(checks: Sequence[Check]) -> str:
    counts = {outcome: sum(check.outcome == outcome for check in checks) for outcome in ORDER}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "none"


def _cost(report: Report) -> str:
    if report.cost is None:
        return ""
    spent = "price unknown" if report.cost.dollars is None else f"{text(dollars(report.cost.dollars))} spent"
    kept = report.cost.kept_month
    return f"; {spent}" + ("" if kept is None else f", {text(dollars(kept))} a month for the image at most")


def _foot(report: Report) -> list[str]:
    return [f"The whole report is <code>report.html</code> of run {code(report.run.id)}."]


def _sections(report: Report) -> Iterator[Section]:
    red = sorted((one for one in report.checks if one.red), key=lambda one: _rank(one.about.severity))
    yield Section("### What failed", [_failure(check) for check in red], folded=False)
    differences = report.venue.differences
    title = f"A rehearsal differs from a bake on AWS in {len(differences)} ways"
    yield Section(title, [f"- {text(one, LONG)}" for one in differences])
    yield _waivers(report)
    if changes := report.since_last_good:
        yield _changes(f"Changed since {text(changes.before)}", changes.changes)
    if changes := report.changed_on_machine:
        unmeant = [one for one in changes.changes if not one.meant]
        yield _changes("Changed on the machine, and not meant to be", unmeant)
    yield _publication(report)
    yield _cold_start(report)
    yield _scan(report)
    yield _checks(report)
    yield _versions(report)


def _failure(check: Check) -> str:
    """A failed check as an item of a list."""
    about = check.about
    lines = [
        f"- {SIGNS[check.outcome]} {code(check.id)} ({about.severity}, {check.moment}): {text(about.title)}",
        f"  - {check.outcome}: {text(check.reason, LONG)}",
    ]
    for one in check.evidence[:5]:
        lines.append(f"  - expected {code(one.expected)}, found {code(one.found)}, by {code(one.by, LONG)}")
    if check.waiver:
        lines.append(f"  - its waiver has ended: {text(str(check.waiver.until))}")
    lines.append(f"  - remedy: {text(about.remedy, LONG)}")
    return "\n".join(lines)


def _waivers(report: Report) -> Section:
    used = {one.waiver.check for one in report.checks if one.waiver and one.outcome == "waived"}
    used |= {one.id for one in (report.scan.vulnerabilities if report.scan else ()) if one.waiver}
    day = datetime.fromisoformat(report.run.finished or report.run.started).date()
    waivers = sorted(report.waivers, key=lambda one: one.until)
    rows = [_waiver(one, (one.until - day).days, one.check in used) for one in waivers]
    header = ("check", "reason", "risk", "approved by", "until", "days left", "used")
    first = f", the first until {waivers[0].until}" if waivers else ""
    return Section(f"Waivers: {len(rows)}{first}", rows, header)


def _waiver(waiver: Waiver, days: int, used: bool) -> str:
    left = str(days) if days >= 0 else f"ended {-days} days ago"
    texts = (text(waiver.reason), text(waiver.risk), text(waiver.approved_by))
    return _row(code(waiver.check), *texts, str(waiver.until), left, "yes" if used else "no")


def _changes(title: str, changes: Sequence[Change]) -> Section:
    rows = [
        _row(text(one.kind), code(one.name), code(one.before or ""), code(one.after or "")) for one in changes
    ]
    return Section(f"{title}: {len(rows)}", rows, ("what", "name", "before", "after"))


def _publication(report: Report) -> Section:
    failed = sum(one.state == "failed" for one in report.publication)
    rows = [
        _row(text(one.what), text(one.region), code(one.id, LONG), text(one.why or one.state, LONG))
        for one in report.publication
    ]
    title = f"Published: {len(rows) - failed} of {len(rows)}"
    return Section(title, rows, ("what", "region", "id", "state"))


def _cold_start(report: Report) -> Section:
    found = report.cold_start
    if found is None:
        return Section("", [])
    table = [_row(*(text(cell) for cell in cells)) for cells in cold_start.rows(found)]
    more = [f"\n{text(one, LONG)}" for one in cold_start.remarks(found)]
    return Section(text(cold_start.sentence(found), LONG), [*table, *more], cold_start.HEADER)


def _scan(report: Report) -> Section:
    scan = report.scan
    if scan is None:
        return Section("", [])
    found = sorted(scan.vulnerabilities, key=lambda one: (_rank(one.severity), one.package, one.id))
    rows = [
        _row(text(one.severity), code(one.id), code(f"{one.package} {one.version}"), code(one.fixed_in))
        for one in found
    ]
    rows += [_row("not covered", "", text(kind), "") for kind in scan.not_covered]
    title = (
        f"Vulnerabilities: {len(found)}, by {text(scan.scanner)} with its database of {text(scan.database)}"
    )
    return Section(title, rows, ("severity", "id", "package", "fixed in"))


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _checks(report: Report) -> Section:
    """All checks, by group."""
    order = sorted(report.checks, key=lambda one: (GROUPS.index(one.about.group), ORDER.index(one.outcome)))
    rows = [
        _row(one.about.group, _outcome(one), one.moment, code(one.id), text(one.about.title)) for one in order
    ]
    return Section(f"Checks: {_count(report.checks)}", rows, ("group", "outcome", "moment", "check", "what"))


def _outcome(check: Check) -> str:
    return f"{SIGNS[check.outcome]} {check.outcome}"


def _versions(report: Report) -> Section:
    versions = report.inventories[-1].versions if report.inventories else {}
    rows = [_row(text(name), code(version)) for name, version in sorted(versions.items())]
    return Section("Versions", rows, ("what", "version"))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
