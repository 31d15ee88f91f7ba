"""The end of a run: tell what ended it, and write its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from bake import aws_errors, interrupt
from bake.aws import call_errors, unanswered
from bake.checks.result import Outcome
from bake.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    BakeError,
    Interrupted,
    LeftBehind,
    NotAgreed,
)
from bake.progress import Progress
from bake.request import Proposal
from bake.run import Run

if TYPE_CHECKING:
    from bake.report.model import Report


@contextmanager
def reported(proposal: Proposal, run: Run) -> Iterator[None]:
    """Write the run's report at its end, once all is removed; verdict and place are the last that is told."""
    try:
        yield
    except BaseException as error:
        tell_end(run.progress, error)
        raise
    finally:
        with interrupt.deferred():
            _report(proposal, run)


def _report(proposal: Proposal, run: Run) -> None:
    """Whatever goes wrong with a report is told, and changes nothing about how the run ended."""
    progress = run.progress
    progress.stop_recording()
    try:
        from bake.report import formats, markdown, writing  # bake may have been upgraded meanwhile

        report = writing.write(run.directory, progress.note)
        markdown.summarize(report)
        _publish(report, proposal, run)
    except Exception as error:
        progress.note(f"there is no whole report: {type(error).__name__}: {error}")
        return
    page, verdict = run.directory / formats.PAGE, report.verdict
    file = page if page.exists() else run.directory / "report.json"
    told = f"{verdict.state.upper()} ({report.venue.name}): {verdict.sentence}"
    text = "\n".join([told, *_checks(report), f"Report         {file}"])
    progress.emit("reported", verdict=verdict.state, venue=report.venue.name, report=str(file), text=text)


def _checks(report: Report) -> list[str]:
    """A line that counts the checks by outcome, if there are any."""
    outcomes = [one.outcome for one in report.checks]
    counts = [f"{outcomes.count(one)} {one}" for one in get_args(Outcome) if one in outcomes]
    return [f"Checks         {', '.join(counts)}"] if counts else []


def _publish(report: Report, proposal: Proposal, run: Run) -> None:
    """Copy the report to where the profile keeps reports, and name it in the AMI's tags."""
    from bake.report import places

    place = proposal.plan.profile.reports
    if place is None:
        return
    try:
        url, sha256 = places.upload(proposal.aws, run.directory, place)
        run.progress.note(f"the report is in {url}")
        if report.image is not None and report.verdict.state != "bad":
            told = {places.REPORT_TAG: url, places.SHA256_TAG: sha256}
            tags = [{"Key": key, "Value": value} for key, value in told.items()]
            proposal.aws.ec2.create_tags(Resources=[report.image.id], Tags=tags)  # type: ignore[arg-type]
    except BakeError as error:
        run.progress.note(f"the report is not in {place}: {error.message}")
    except call_errors() as error:
        run.progress.note(f"the report is not in {place}, or the AMI does not name it: {unanswered(error)}")


def tell_end(progress: Progress, error: BaseException) -> None:
    """Tell what ended the run or the command, once."""
    if progress.ended_by is error:
        return
    progress.ended_by = error
    match error:
        case LeftBehind():
            cause = error.__cause__
            why = {"cause": str(cause), "interrupted": isinstance(cause, KeyboardInterrupt)} if cause else {}
            told = {"message": error.message, "hint": error.hint, "left_behind": list(error.leaks), **why}
            progress.emit("failed", **told, exit_code=error.exit_code)
        case BakeError():
            proposal = error.proposal if isinstance(error, NotAgreed) else None
            more = {"proposal": dict(proposal)} if proposal else {}
            progress.emit("failed", message=error.message, hint=error.hint, exit_code=error.exit_code, **more)
        case Interrupted():
            progress.emit("interrupted", signal=str(error), exit_code=EXIT_INTERRUPTED)
        case Exception():
            message, hint = aws_errors.explain(error) or (f"{type(error).__name__}: {error}", None)
            code = EXIT_USAGE if aws_errors.is_mistake(error) else EXIT_FAILED
            progress.emit("failed", message=message, hint=hint, exit_code=code)
