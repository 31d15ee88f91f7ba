"""Keep a spot builder that EC2 interrupts, so that the run can be resumed; tell of EC2's notice before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bake import retries
from bake.aws import Aws, call_errors
from bake.creation import EXPIRES_TAG, tag_of
from bake.errors import Resumable
from bake.instance import describe, is_interrupted
from bake.journal import Record
from bake.planning.plan import Plan
from bake.run import Run
from bake.steps.launch import Instance
from bake.undo import Undo

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

BETWEEN = 10.0  # seconds between two looks for a notice, which comes two minutes ahead
LOOK = 10.0  # seconds for an answer
SETTLES = 60.0  # seconds for the state of a builder that is marked for a stop to follow
MARKED = "marked-for-stop"


class BuilderInterrupted(Resumable):
    """EC2 took the builder back, and keeps its disk."""


@contextmanager
def kept(builder: Instance, plan: Plan, aws: Aws, run: Run, undo: Undo) -> Iterator[None]:
    """If EC2 stops a spot builder during the block, leave all that the run holds to `bake resume`.

    Whatever fails because of that (a command, a check, the connection) is reported as the interruption.
    """
    if plan.profile.builder.market != "spot":
        yield
        return
    with _notices(builder, aws, run):
        try:
            yield
        except Exception as error:
            facts = _interrupted(builder, aws)
            if facts is None or _is_sealing(run):
                raise
            undo.leave()
            run.journal.write("interrupted", what=f"instance {builder.id}")
            raise _told(builder, run, facts) from error


def _told(builder: Instance, run: Run, facts: InstanceTypeDef) -> BuilderInterrupted:
    expires = tag_of(facts.get("Tags"), EXPIRES_TAG)
    return BuilderInterrupted(
        f"EC2 interrupted the spot builder {builder.id} and stopped it; its disk is kept, with all that was "
        f"installed and downloaded, until the lease of the run ends ({expires or 'its expiry is not known'})",
        hint=f"`bake resume {run.id}` waits until EC2 has capacity and starts it, and goes on; after the "
        "lease `bake sweep` removes it",
    )


def _is_sealing(run: Run) -> bool:
    """Whether nobody may log in to it again; what the seal had done is not known."""
    record = Record.read(run.directory)
    return record is not None and record.step == "seal"


def _interrupted(builder: Instance, aws: Aws) -> InstanceTypeDef | None:
    """Return the builder as EC2 describes it if EC2 has stopped it; None if not, or without an answer."""
    deadline = time.monotonic() + SETTLES
    try:
        what = f"EC2 to tell how {builder.id} ended"
        with aws.tally.waiting(what, SETTLES) as wait, retries.until(deadline + LOOK):
            while True:
                facts = describe(aws, builder.id)
                if is_interrupted(facts):
                    return facts
                runs = facts is not None and facts["State"]["Name"] == "running"
                if not runs or _request(aws, facts) != MARKED or time.monotonic() > deadline:
                    return None
                wait.pause(1)
    except call_errors():
        return None  # what ended the bake matters more


def _request(aws: Aws, facts: InstanceTypeDef | None) -> str:
    """The status code of its spot request; empty if it has none."""
    identity = (facts or {}).get("SpotInstanceRequestId")
    if not identity:
        return ""
    found = aws.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[identity])
    return next((one["Status"]["Code"] for one in found["SpotInstanceRequests"]), "")


@contextmanager
def _notices(builder: Instance, aws: Aws, run: Run) -> Iterator[None]:
    """Look for EC2's notice during the block, and tell it once."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                with retries.until(time.monotonic() + LOOK):
                    code = _request(aws, describe(aws, builder.id))
            except call_errors():
                code = ""
            if code.startswith("marked-for-"):
                what = "stops it" if code == MARKED else "ends it"
                run.progress.note(
                    f"EC2 takes the spot builder {builder.id} back, and {what} within two minutes"
                )
                return
            over.wait(BETWEEN)

    thread = threading.Thread(target=look, name="spot notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
