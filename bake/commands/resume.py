"""`bake resume`: go on with a run whose controller was killed, switched off or cut from the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.journal import Record
    from bake.progress import Progress
    from bake.request import BakeRequest, Proposal


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines on stdout.")
@click.pass_obj
def resume(obj: dict[str, Any], run: str, as_json: bool) -> None:
    """Go on with a run that was cut, from its last finished step.

    Its builder is taken over if it is still there and the plan is the same; an AMI that is being made is
    waited for; one without a boot check is checked. What was done is not done again. If nothing is left to
    go on with, that is said, what the run left is removed, and the profile is baked anew.

    \b
    Examples:
      bake resume 20261128-101500-3fa9c1
      bake --runs /srv/bake/runs resume 20261128-101500-3fa9c1
    """
    from contextlib import ExitStack

    from bake.commands.bake import bake_anew, proposed, reporting
    from bake.commands.runs import record_of
    from bake.steps.take_over import Lost

    record = record_of(obj["runs"], run)
    _check(record)
    with reporting(as_json or obj["as_json"]) as progress, ExitStack() as stack:
        proposal = proposed(_request(record), stack, progress)
        try:
            _go_on(proposal, record, progress)
        except Lost as lost:
            progress.note(f"run {run} can't go on: {lost.message}; it is baked anew")
            bake_anew(proposal, obj["runs"], progress)


def _check(record: Record) -> None:
    if record.begun["command"] != "bake":
        raise UsageError(
            f"run {record.id} was not a bake but a `bake {record.begun['command']}`",
            hint="call that again: it needs nothing of the run that was cut; bake sweep removes what it left",
        )
    if record.ended:
        raise UsageError(
            f"run {record.id} has ended ({record.ended}): there is nothing to go on with",
            hint="bake --profile bakes anew; bake boot-check proves an unproven AMI",
        )


def _request(record: Record) -> BakeRequest:
    from pathlib import Path

    from bake.localcloud import asked_delays, trusted
    from bake.request import BakeRequest

    begun = record.begun
    paths = Path(begun["directory"]), Path(begun["env_file"])
    how = {"rehearsal": begun["rehearsal"], "trust_guests": trusted(), "delays": asked_delays()}
    return BakeRequest(begun["profile"], *paths, **how)


def _go_on(proposal: Proposal, record: Record, progress: Progress) -> None:
    from bake.commands.bake import bake_run, running
    from bake.run import again
    from bake.steps.take_over import AlreadyDone

    with running(proposal, again(record, progress)) as run:
        try:
            bake_run(proposal, run)
        except AlreadyDone as done:
            progress.note(done.message)
