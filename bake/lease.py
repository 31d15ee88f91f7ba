"""A run's lease: renewed while the bake makes progress; without progress it ends the bake.

A bake that only answers makes no progress: what counts is what `Tally.moved` is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bake import interrupt, retries
from bake.aws import Aws, call_errors, unanswered
from bake.creation import EXPIRES_TAG, RUN_TAG, stamp, unless_absent
from bake.errors import BakeError, Interrupted
from bake.run import Run

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagDescriptionTypeDef

# Renewals in a lease's length: nine may fail before it runs out.
RENEWALS = 10
# Seconds for one renewal, which is tried again at the next beat.
BRIEF = 20.0


class RanOut(BakeError):
    """The bake made no progress for as long as its lease is."""


class Lease:
    """Renews `bake:expires` on what a run holds, for the block; ends the block if nothing moves any more."""

    def __init__(self, length: timedelta, aws: Aws, run: Run) -> None:
        self.length = length
        self.ran_out = ""
        self._aws, self._run, self._tally = aws, run, run.progress.tally
        self._renewed = 0.0
        self._noted = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def expires(self) -> datetime:
        """When it runs out by AWS's clock, unless something moves before."""
        return self._aws.now() + self.length - timedelta(seconds=self._idle())

    def __enter__(self) -> Lease:
        self._tally.moved("the bake began")
        self._renewed = self._tally.moved_at  # what is created now carries a whole lease
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if not self.ran_out or error is None:
            return
        if isinstance(error, BakeError):  # a removal that failed, or an AMI that is kept
            error.message += f"\n{self.ran_out}"
        elif isinstance(error, Interrupted):
            hint = "builder.lease_hours gives a bake longer; the run directory has what it did last"
            raise RanOut(self.ran_out, hint=hint) from error

    def _idle(self) -> float:
        return time.monotonic() - self._tally.moved_at

    def _keep(self) -> None:
        length = self.length.total_seconds()
        while not self._over.wait(min(length / RENEWALS, max(length - self._idle(), 0))):
            if self._idle() >= length:
                self.ran_out = self._why()
                self._run.progress.note(self.ran_out)
                interrupt.request()
                return
            if self._tally.moved_at > self._renewed:
                self._renew()

    def _why(self) -> str:
        since = time.strftime("%H:%M", time.localtime(time.time() - self._idle()))
        wait = self._tally.waits.of_main_thread()
        waits = f"; it waits for {wait}" if wait else ""
        return (
            f"no progress for {self.length / timedelta(hours=1):.3g} h: "
            f"the last was at {since}, {self._tally.last_move}{waits}"
        )

    def _renew(self) -> None:
        """The builder first: tags that promise more than it keeps would have a resume wait for it."""
        moved, until = self._tally.moved_at, ""
        try:
            until = stamp(self.expires)
            asleep = self._failure_on_builder(until)
            with retries.until(time.monotonic() + BRIEF):
                renew(self._aws, self._run.id, until)
                for one in list(self._run.renewals):
                    self._renew_elsewhere(one, until)
            if asleep is not None:
                raise asleep
        except Exception as error:  # a bug here must not stop the thread that ends a hanging bake
            self._note(error)
        else:
            self._renewed, self._noted = moved, False
            self._run.journal.write("renewed", expires=until)

    def _failure_on_builder(self, until: str) -> Exception | None:
        """Move the builder's own expiry; what fails here must not keep the tags from being moved."""
        try:
            for one in list(self._run.on_builder):
                one(until)
        except Exception as error:
            return error
        return None

    def _renew_elsewhere(self, one: Callable[[str], object], until: str) -> None:
        """What is removed by now needs no renewal any more."""
        if unless_absent(lambda: (one(until),)) is None:
            self._run.renewals.remove(one)

    def _note(self, error: Exception) -> None:
        """Note once that the tags fall behind: after half of a lease."""
        late = time.monotonic() - self._renewed > self.length.total_seconds() / 2
        if late and not self._noted and not self._over.is_set():
            why = unanswered(error) or f"{type(error).__name__}: {error}"
            self._run.progress.note(f"the lease is not renewed: {why}; tried again")
            self._noted = True


def renew(aws: Aws, run: str, until: str) -> None:
    """Move the expiry of all drafts of a run in EC2; good and unproven AMIs have none."""
    found = _tags_of(aws, [{"Name": "key", "Values": [RUN_TAG]}, {"Name": "value", "Values": [run]}])
    ids = sorted({tag["ResourceId"] for tag in found})
    if not ids:
        return
    drafts = _tags_of(
        aws,
        [
            {"Name": "resource-id", "Values": ids},
            {"Name": "key", "Values": ["bake:state"]},
            {"Name": "value", "Values": ["draft"]},
        ],
    )
    ids = sorted({tag["ResourceId"] for tag in drafts})
    tags: Any = [{"Key": EXPIRES_TAG, "Value": until}]
    try:
        if ids:
            aws.ec2.create_tags(Resources=ids, Tags=tags)
    except call_errors():
        if len(ids) < 2:
            raise
        for one in ids:  # one that has just gone makes EC2 refuse all
            with suppress(*call_errors()):
                aws.ec2.create_tags(Resources=[one], Tags=tags)


def _tags_of(aws: Aws, filters: Any) -> list[TagDescriptionTypeDef]:
    return aws.ec2.describe_tags(Filters=filters)["Tags"]
