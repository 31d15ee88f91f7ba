"""Run `bake --profile` and `bake --profile --rehearse`."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bake import costs, interrupt, notices
from bake import run as runs_of
from bake.agreement import render as agreement_render
from bake.aws import unanswered
from bake.commands import facts
from bake.commands import proposal as proposal_of
from bake.commands.ending import reported, tell_bus, tell_end
from bake.commands.if_changed import needs_no_bake, output
from bake.errors import EXIT_BUG, BakeError, Interrupted, Resumable, disk_full
from bake.journal import Record
from bake.pipeline import bake
from bake.planning import render as plan_render
from bake.progress import Progress, choose_screen
from bake.release import summary
from bake.request import BakeRequest, Proposal, clients, load, local_cloud, lock_rehearsal, propose
from bake.run import Run
from bake.undo import naming

if TYPE_CHECKING:
    from bake.localcloud import LocalCloud


class Bug(BakeError):
    """A bug in bake; its traceback is in the run directory."""

    exit_code = EXIT_BUG


def bake_profile(
    request: BakeRequest, runs: Path, *, as_json: bool, exclusive: bool, if_changed: bool = False
) -> None:
    """Bake on AWS; a rehearsal on the local cloud, which is started unless it runs already.

    With `if_changed`, do nothing where there is a good image of just what would be baked.
    """
    with reporting(as_json) as progress, ExitStack() as stack:
        runs_of.check_place(runs)
        cloud = prepared(request, stack, progress)
        if if_changed and needs_no_bake(request, cloud, runs, progress):
            return
        bake_anew(planned(request, cloud, progress), runs, progress, exclusive=exclusive)


def bake_anew(proposal: Proposal, runs: Path, progress: Progress, *, exclusive: bool = False) -> None:
    """Bake what was proposed, as a new run."""
    with running(proposal, runs_of.new(runs, progress, exclusive=exclusive)) as run:
        bake_run(proposal, run)


def bake_run(proposal: Proposal, run: Run) -> None:
    """Bake, and tell what came of it."""
    release = bake(proposal.plan, proposal.aws.patiently(), run)
    text = summary(release, cost_of(run), rehearsal=proposal.request.rehearsal)
    run.progress.emit("released", image=release.image.id, directory=str(release.directory), text=text)
    output(run.progress, image=release.image.id)


def proposed(request: BakeRequest, stack: ExitStack, progress: Progress) -> Proposal:
    """Plan, and refuse what is not agreed or locked."""
    return planned(request, prepared(request, stack, progress), progress)


def prepared(request: BakeRequest, stack: ExitStack, progress: Progress) -> LocalCloud | None:
    """A rehearsal's cloud, with the weights locked that it has; None for AWS."""
    cloud = local_cloud(request, stack, progress.note, progress)
    if cloud is not None:
        lock_rehearsal(request, cloud, progress.note)
    return cloud


def planned(request: BakeRequest, cloud: LocalCloud | None, progress: Progress) -> Proposal:
    """Plan, and refuse what is not agreed or locked."""
    with progress.step("plan"), _announced(request, cloud, progress):
        return propose(request, cloud, progress.tally, baking=True)


@contextmanager
def _announced(request: BakeRequest, cloud: LocalCloud | None, progress: Progress) -> Iterator[None]:
    """Tell the bus of a profile that a bake was refused: nobody looks at the screen of a scheduled one."""
    try:
        yield
    except BakeError as error:
        with suppress(BakeError):  # a profile that can't be read names no bus
            profile, _ = load(request, cloud)
            if profile.notices is not None:
                aws = clients(profile, cloud, progress.tally)
                told = notices.of_refusal(profile.name, aws.region, _venue(request), error)
                tell_bus(aws, profile.notices, *told, progress.note)
        raise


def _venue(request: BakeRequest) -> str:
    return "REHEARSAL" if request.rehearsal else "AWS"


@contextmanager
def running(proposal: Proposal, run: Run, command: str = "bake") -> Iterator[Run]:
    """Hold a run's directory; however it ends, what it cost is told, and its report is written."""
    progress = run.progress
    with (
        runs_of.alone(run.directory),
        reported(proposal, run),
        naming(run.leaks),
        _explaining(run),
        _noted(proposal, run, command),
    ):
        facts.keep(proposal, run, command)
        kept = {**plan_render.as_dict(proposal.plan), **proposal_of.as_dict(proposal)}
        run.keep("plan.json", json.dumps(kept, indent=2) + "\n")
        text, found = plan_render.as_text(proposal.plan), plan_render.as_dict(proposal.plan)
        progress.emit("plan", text=text, plan=found)
        if proposal.agreement is None:
            progress.note(agreement_render.without_agreement(proposal.request))
        progress.emit("run", id=run.id, directory=str(run.directory))
        yield run


def cost_of(run: Run) -> str:
    """What the run cost so far, by its journal."""
    record = Record.read(run.directory)
    return str(costs.of(record.entries, datetime.now(UTC))) if record else "not known: there is no journal"


@contextmanager
def _noted(proposal: Proposal, run: Run, command: str) -> Iterator[None]:
    """Note in the journal what is baked, and how that ended; a run that has ended can't be resumed."""
    plan, request = proposal.plan, proposal.request
    prices = plan.estimates.prices
    run.journal.begin(
        "run" if run.attempt == 1 else "resumed",
        command=command,
        profile=request.profile,
        plan=plan.id,
        directory=str(request.directory.absolute()),
        env_file=str(request.env_file.absolute()),
        rehearsal=request.rehearsal,
        prices={
            "builder_hour": prices.builder_hour,
            "worker_hour": prices.worker_hour,
            "kept_month": plan.estimates.month_dollars,
        },
    )
    outcome: str | None = "failed"
    try:
        yield
        outcome = "done"
    except Resumable:
        outcome = None
        raise
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        if outcome is not None:
            with interrupt.deferred():
                _end(run, outcome)


def _end(run: Run, outcome: str) -> None:
    if outcome != "done":
        run.progress.note(f"cost: {cost_of(run)}")
    run.journal.write("ended", outcome=outcome)
    run.memory.forget()


@contextmanager
def _explaining(run: Run) -> Iterator[None]:
    """Keep a bug's traceback in the run directory; add what is kept on purpose to the error."""
    try:
        yield
    except (BakeError, Interrupted) as error:
        for text in run.kept:
            error.add_note(text)
        raise
    except Exception as error:
        if unanswered(error) is not None:
            raise
        if (full := disk_full(error)) is not None:
            for text in run.kept:
                full.add_note(text)
            raise full from error
        file = run.keep("logs/traceback.log", "".join(traceback.format_exception(error)))
        if not file.exists():
            raise
        text = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", []), *run.kept])
        raise Bug(text, hint=f"this is a bug in bake; please report it with {file}") from error


@contextmanager
def reporting(as_json: bool) -> Iterator[Progress]:
    """A screen that is told what ended the command, and is closed in any case."""
    progress = Progress(choose_screen(as_json=as_json))
    try:
        yield progress
    except (BakeError, Interrupted) as error:
        tell_end(progress, error)
        raise
    finally:
        progress.close()
