"""JUnit XML of a report: the checks as CI systems show them.

GitLab shows a test case's class and name alone, so these hold the group, the id and the title. GitHub's
actions add the message, the file and the line; CodeBuild groups by suite, and leaves properties out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from junitparser import Error, Failure, Skipped
from junitparser.junitparser import FinalResult
from junitparser.xunit2 import JUnitXml, TestCase, TestSuite

from bake.report.text import visible

if TYPE_CHECKING:
    from bake.checks.result import Check
    from bake.report.model import Report

LIMIT = 10_000
"""Characters of one text: CI systems cut or refuse longer ones."""
MOMENTS = ("base", "sealed", "booted")


def junit(report: Report) -> str:
    """The run and its checks as JUnit XML: a suite of the verdict, and one for each moment of checks.

    Failed checks are failures, those that were not run are errors; waived ones and those that do not apply
    are skipped, with the reason. The verdict's suite keeps a run without checks from being green.
    """
    title = f"{report.venue.name} {report.run.profile}"
    document = JUnitXml(_text(title))
    document.append(_suite(f"{title} {report.run.command}", [_verdict(report)], report))
    for moment in MOMENTS:
        if cases := [_case(check) for check in report.checks if check.moment == moment]:
            document.append(_suite(f"{title} {moment}", cases, report))
    document.update_statistics()
    content: bytes = document.tostring()
    return f'<?xml version="1.0" encoding="utf-8"?>\n{content.decode("utf-8")}\n'


def _suite(name: str, cases: list[TestCase], report: Report) -> TestSuite:
    suite = TestSuite(_text(name))
    suite.timestamp = report.run.started
    for key, value in _facts(report):
        suite.add_property(key, _text(value))
    suite.extend(cases)
    suite.update_statistics()
    return suite


def _verdict(report: Report) -> TestCase:
    verdict = report.verdict
    case = TestCase(_text(f"verdict: {verdict.sentence}"), report.run.command, 0.0)
    text = _text("\n".join(part for part in (verdict.error, verdict.hint, *verdict.left_behind) if part))
    if verdict.state in ("bad", "failed"):
        case.append(_with_text(Failure(_text(verdict.sentence), verdict.state), text))
    elif verdict.state != "good":
        case.append(_with_text(Error(_text(verdict.sentence), verdict.state), text))
    return case


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """What the run is, for a suite's properties; the controller's host name is nobody's business."""
    run, image = report.run, report.image
    yield "venue", report.venue.name
    yield "verdict", f"{report.verdict.state}: {report.verdict.sentence}"
    yield "run", run.id
    yield "plan", run.plan
    yield "profile", run.profile
    yield "bake_version", run.bake_version
    yield "account", run.account or "unknown"
    yield "region", run.region
    yield "image", image.id if image else "none"
    yield from (("difference", difference) for difference in report.venue.differences)


def _case(check: Check) -> TestCase:
    about = check.about
    case = TestCase(_text(f"{about.id}: {about.title}"), about.group, check.seconds)
    file, _, number = about.source.rpartition(":")
    case._elem.set("file", _text(file or about.source))  # junitparser has no attribute for them
    if number.isdecimal() and file:
        case._elem.set("line", number)
    for key, value in _about(check):
        case.add_property(key, _text(value))
    _put_result(case, check)
    return case


def _about(check: Check) -> Iterator[tuple[str, str]]:
    yield "id", check.id
    yield "outcome", check.outcome
    yield "severity", check.about.severity
    yield from (("requirement", requirement) for requirement in check.about.requirements)
    if check.about.cis:
        yield "cis", check.about.cis


def _put_result(case: TestCase, check: Check) -> None:
    reason, text = _text(check.reason), _text(explanation(check))
    match check.outcome:
        case "failed":
            case.append(_with_text(Failure(reason, check.about.severity), text))
        case "not run":
            case.append(_with_text(Error(f"not run: {reason}", "not run"), text))
        case "waived":
            case.append(_with_text(Skipped(_text(f"waived: {_waived(check)}"), "waived"), text))
        case "not applicable":
            case.append(Skipped(f"not applicable: {reason}", "not applicable"))
        case "passed":
            case.system_out = _text("\n".join(_evidence(check)))


def _with_text(result: FinalResult, text: str) -> FinalResult:
    result.text = text
    return result


def _waived(check: Check) -> str:
    if check.waiver is None:
        return check.reason
    waiver = check.waiver
    return f"{waiver.reason} (approved by {waiver.approved_by} until {waiver.until})"


def explanation(check: Check) -> str:
    """A check in words: the reason, the evidence, why it matters, and what to do."""
    lines = [check.reason, *_evidence(check)]
    lines += [f"base AMI, too: {finding}" for finding in check.base]
    if check.waiver:
        ended = " (ended)" if check.outcome == "failed" else ""
        lines.append(f"waiver{ended}: {_waived(check)}; risk: {check.waiver.risk}")
    lines += [f"why: {check.about.rationale}", f"remedy: {check.about.remedy}"]
    return "\n".join(line for line in lines if line)


def _evidence(check: Check) -> Iterator[str]:
    for one in check.evidence:
        yield f"expected: {one.expected}\nfound: {one.found}\nby: {one.by}"


def _text(text: str) -> str:
    """Text that XML 1.0 may hold."""
    return visible(text, LIMIT)
