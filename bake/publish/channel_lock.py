"""The lock of a channel: a parameter beside it that one run alone can create.

It keeps two runs of bake apart. It keeps nobody from changing the channel's parameter by other means: that is
found by the parameter's versions (bake/publish/promote.py).

A lock that is left by a dead run is taken over by whoever comes LOCK_AGE later, by AWS's clock. It is written
over, since a lock that is deleted may be another's by then: of two who take it over at once, the versions
tell the first, and the other one stops. A lock that was written over so is its holder's still, so each one
says whose lock it took over: `instead_of`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bake.aws import Aws, ClientError, error_code
from bake.creation import stamp
from bake.errors import BakeError
from bake.publish import channels
from bake.publish.channels import Channel
from bake.retries import is_refused
from bake.undo import Undo

EXISTS = "ParameterAlreadyExists"
# A promotion takes seconds, and AWS's look at an AMI minutes at most.
LOCK_AGE = timedelta(minutes=15)


class Locked(BakeError):
    """Somebody else is changing the channel; nothing was changed."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its value tells; `version` and `since` are the parameter's own."""

    who: str
    run: str
    instead_of: str
    version: int
    since: datetime


def holder(aws: Aws, channel: Channel) -> Holder | None:
    """Who holds the lock of a channel; None if nobody does. What is no lock of bake's is somebody's."""
    found = channels.read(aws, channel.lock)
    if not found.number:
        return None
    try:
        told: Any = json.loads(found.value)
        who, run, instead_of = str(told["who"]), str(told["run"]), str(told["instead_of"])
    except (ValueError, TypeError, KeyError):
        who, run, instead_of = "somebody", "", ""
    return Holder(who, run, instead_of, found.number, found.when)


@contextmanager
def locked(aws: Aws, channel: Channel, run: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a channel for the block; `run` names who does, and no two runs alike.

    Raises Locked if another run holds it, and LeftBehind with the command if it could not be released.
    """
    lock = _Lock(aws, channel, run, str(aws.sts.get_caller_identity()["Arn"]))
    with Undo() as undo:
        removal = undo.add(f"the lock {channel.lock}", lock.release, by_hand=by_hand(aws, channel))
        try:
            lock.take(say)
        except (Locked, ClientError) as error:
            if isinstance(error, Locked) or is_refused(error):
                undo.forget(removal)
            raise
        yield


def by_hand(aws: Aws, channel: Channel) -> str:
    """The command that removes a lock."""
    return aws.command("ssm", "delete-parameter", "--name", channel.lock)


@dataclass
class _Lock:
    aws: Aws
    channel: Channel
    run: str
    who: str
    instead_of: str = ""

    def take(self, say: Callable[[str], None]) -> None:
        """Create the lock, or take over one that is too old; Locked if it is another's."""
        for _ in range(3):
            if self._create():
                return
            if (there := holder(self.aws, self.channel)) is None:
                continue  # released a moment ago
            if there.run == self.run:  # the answer to an earlier try was lost
                return
            age = self.aws.now() - there.since
            if age < LOCK_AGE:
                break
            say(
                f"{there.who} has held the lock of {self.channel.name} for {_minutes(age)}, since "
                f"{stamp(there.since)}: it is taken over"
            )
            self._take_over(there)
            return
        raise self._refusal(holder(self.aws, self.channel))

    def _create(self) -> bool:
        try:
            self._put(overwrite=False)
        except ClientError as error:
            if error_code(error) == EXISTS:
                return False
            raise
        return True

    def _take_over(self, there: Holder) -> None:
        self.instead_of = there.run or f"version {there.version}"
        if self._put(overwrite=True) != there.version + 1:
            self.instead_of = ""  # the lock is the first one's, and so is its end
            raise self._refusal(None)

    def _put(self, *, overwrite: bool) -> int:
        told = {"who": self.who, "when": stamp(self.aws.now()), "run": self.run}
        told["instead_of"] = self.instead_of
        written = self.aws.ssm.put_parameter(
            Name=self.channel.lock,
            Value=json.dumps(told),
            Type="String",
            Description=f"held while bake changes {self.channel.parameter}",
            Overwrite=overwrite,
        )
        return int(written["Version"])

    def _refusal(self, there: Holder | None) -> Locked:
        who = f"{there.who}, since {stamp(there.since)}" if there else "another run, since a moment ago"
        return Locked(
            f"{self.channel.name} is being changed by {who}; nothing was changed here",
            hint=f"try again when that is done. A lock that a dead run left is taken over after "
            f"{_minutes(LOCK_AGE)}; sooner only by hand:\n  {by_hand(self.aws, self.channel)}",
        )

    def release(self) -> None:
        """Remove the lock if it is this run's: nobody else's, who took it over since."""
        there = holder(self.aws, self.channel)
        if there is None:
            return
        if there.run == self.run or (self.instead_of and there.instead_of == self.instead_of):
            try:
                self.aws.ssm.delete_parameter(Name=self.channel.lock)
            except ClientError as error:
                if error_code(error) != channels.ABSENT:
                    raise


def _minutes(age: timedelta) -> str:
    return f"{age.total_seconds() / 60:.0f} minutes"
