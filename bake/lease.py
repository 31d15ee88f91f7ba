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
# Seconds between two looks at the clock: it may have moved on while this machine was suspended.
LOOK = 10.0
LONGER = "builder.lease_hours gives a bake longer; the run directory has what it did last"
SUSPENDED = (
    "was this machine suspended, or away from AWS? What the run held may have been swept since; bake again"
)
# Seconds for one renewal, which is tried again at the next beat.
BRIEF = 20.0


class RanOut(BakeError):
    """The bake made no progress for as long as its lease is, or the lease ended unnoticed."""


class Lease:
    """Renews `bake:expires` on what a run holds, for the block; ends the block if nothing moves any more.

    It ends by AWS's clock: this machine's own stands still while it is suspended. What has ended is not
    renewed, since a sweep may have removed what the run held.
    """

    def __init__(self, length: timedelta, aws: Aws, run: Run) -> None:
        self.length = length
        self.ran_out = ""
        self._hint = LONGER
        self._aws, self._run, self._tally = aws, run, run.progress.tally
        self._renewed = 0.0
        self._promised: datetime | None = None  # the latest expiry in the tags of what the run holds
        self._noted = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        run.expires = self.promise

    @property
    def expires(self) -> datetime:
        """When it runs out by AWS's clock, unless something moves before."""
        return self._aws.now() + self.length - timedelta(seconds=self._idle())

    def promise(self) -> datetime:
        """The expiry of what is created now, wherever it is written; RanOut if the lease has ended."""
        if why := self._ended():
            raise RanOut(why, hint=SUSPENDED)
        expires = self.expires
        if self._promised is not None:  # it has begun
            self._promised = max(expires, self._promised)
        return expires

    def __enter__(self) -> Lease:
        if self._run.attempt == 1:  # a resumed run holds something, and must be able to be resumed again
            drafts_of(self._aws, self._run.id)  # refused, it could not be renewed: nothing is created yet
        self._tally.moved("the bake began")
        self._renewed = self._tally.moved_at  # what is created now carries a whole lease
        self._promised = self.expires
        self._run.journal.write("renewed", expires=stamp(self._promised))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if not self.ran_out or error is None or isinstance(error, RanOut):
            return
        if isinstance(error, BakeError):  # a removal that failed, or an AMI that is kept
            error.message += f"\n{self.ran_out}"
        elif isinstance(error, Interrupted):
            raise RanOut(self.ran_out, hint=self._hint) from error

    def _idle(self) -> float:
        return time.monotonic() - self._tally.moved_at

    def _keep(self) -> None:
        length = self.length.total_seconds()
        renewal = time.monotonic() + length / RENEWALS
        while not self._over.wait(min(length / RENEWALS, LOOK, max(length - self._idle(), 0))):
            due = time.monotonic() >= renewal and self._tally.moved_at > self._renewed
            if self._idle() >= length:
                self._end(self._why(), LONGER)
                return
            if why := self._ended(ask=due):
                self._end(why, SUSPENDED)
                return
            if due:
                renewal = time.monotonic() + length / RENEWALS
                self._renew()

    def _end(self, why: str, hint: str) -> None:
        self.ran_out, self._hint = why, hint
        self._run.progress.note(why)
        interrupt.request()

    def _ended(self, *, ask: bool = False) -> str:
        """Say that the lease has ended by AWS's clock, which is asked before; empty if it has not."""
        if self._promised is None or not (ask or self._aws.now() >= self._promised):
            return ""
        with suppress(*call_errors()), retries.until(time.monotonic() + BRIEF):
            self._aws.ask_clock()
        if (now := self._aws.now()) < self._promised:
            return ""
        return (
            f"the lease ended at {stamp(self._promised)}, and it is {stamp(now)} by AWS's clock: "
            "it could not be renewed in time"
        )

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
            expires = self.expires
            until = stamp(expires)
            asleep = self._failure_on_builder(until)
            with retries.until(time.monotonic() + BRIEF):
                renew(self._aws, self._run.id, until)
                self._promised = max(expires, self._promised or expires)
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
    ids = drafts_of(aws, run)
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


def drafts_of(aws: Aws, run: str) -> list[str]:
    """The ids of all drafts of a run in EC2."""
    found = _tags_of(aws, [{"Name": "key", "Values": [RUN_TAG]}, {"Name": "value", "Values": [run]}])
    ids = sorted({tag["ResourceId"] for tag in found})
    if not ids:
        return []
    state: Any = [{"Name": "key", "Values": ["bake:state"]}, {"Name": "value", "Values": ["draft"]}]
    drafts = _tags_of(aws, [{"Name": "resource-id", "Values": ids}, *state])
    return sorted({tag["ResourceId"] for tag in drafts})


def _tags_of(aws: Aws, filters: Any) -> list[TagDescriptionTypeDef]:
    return aws.ec2.describe_tags(Filters=filters)["Tags"]
